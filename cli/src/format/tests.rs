//! Templates print what Docker's client prints for them, and fail with its words.

use serde_json::json;

use super::*;

fn network() -> Value {
    json!({
        "Name": "bridge", "Id": "4b932bb9e909", "Internal": false, "Count": 3, "Ratio": 1.5, "Nothing": null,
        "IPAM": { "Driver": "default", "Config": [{ "Subnet": "172.17.0.0/16" }, { "Subnet": "2001:db8::/64" }] },
        "Labels": { "team": "blue" },
        "Options": {},
        "Containers": {
            "bb": { "Name": "web", "IPv4Address": "172.17.0.3/16" },
            "aa": { "Name": "db", "IPv4Address": "172.17.0.2/16" },
        },
    })
}

fn print(template: &str) -> String {
    let parsed = Template::parse(template).unwrap_or_else(|fault| panic!("{template}: {fault}"));
    parsed.print(&network().into()).unwrap_or_else(|fault| panic!("{template}: {fault}"))
}

fn refusal(template: &str) -> String {
    let outcome = Template::parse(template).and_then(|parsed| parsed.print(&network().into()));
    outcome.expect_err(template).to_string()
}

#[test]
fn formats_that_people_use_print_what_they_expect() {
    for (template, text) in [
        (
            "{{range .Containers}}{{.Name}} - {{.IPv4Address}}{{println}}{{end}}",
            "db - 172.17.0.2/16\nweb - 172.17.0.3/16\n",
        ),
        ("{{range .Containers}}{{.Name}} {{end}}", "db web "),
        ("{{range $id, $end := .Containers}}{{$id}}={{$end.Name}};{{end}}", "aa=db;bb=web;"),
        ("{{range $end := .Containers}}{{$end.Name}};{{end}}", "db;web;"),
        ("{{(index .IPAM.Config 0).Subnet}}", "172.17.0.0/16"),
        ("{{json .IPAM.Config}}", r#"[{"Subnet":"172.17.0.0/16"},{"Subnet":"2001:db8::/64"}]"#),
        ("{{range .Options}}{{.}}{{else}}none{{end}}", "none"),
        ("{{.Name}}: {{len .Containers}}", "bridge: 2"),
        ("{{index .Labels \"team\"}}|{{index .Labels \"x\"}}|{{.Labels.x}}", "blue||<no value>"),
        (
            "{{.Labels}} {{.IPAM.Config}}",
            "map[team:blue] [map[Subnet:172.17.0.0/16] map[Subnet:2001:db8::/64]]",
        ),
    ] {
        assert_eq!(print(template), text, "{template}");
    }
}

#[test]
fn branches_variables_and_trim_markers_work_as_in_go() {
    for (template, text) in [
        ("{{if .Internal}}in{{else if eq .Name \"bridge\"}}b{{else}}out{{end}}", "b"),
        ("{{if and .Name (not .Internal)}}yes{{end}}", "yes"),
        ("{{with .IPAM}}{{.Driver}} of {{$.Name}}{{end}}", "default of bridge"),
        ("{{with .Nothing}}x{{else with .Name}}{{.}}{{end}}", "bridge"),
        ("{{$x := 1}}{{if true}}{{$x = 2}}{{$y := 5}}{{$y}}{{end}}{{$x}}", "52"),
        (
            "{{range $i, $c := .IPAM.Config}}{{if $i}}, {{end}}{{$c.Subnet}}{{end}}",
            "172.17.0.0/16, 2001:db8::/64",
        ),
        ("{{range .IPAM.Config}}{{.Subnet}}{{break}}{{end}}", "172.17.0.0/16"),
        ("{{range $i, $_ := .IPAM.Config}}{{if eq $i 0}}{{continue}}{{end}}{{$i}}{{end}}", "1"),
        ("a  {{- .Name -}}  b", "abridgeb"),
        ("a {{/* nothing */}} b{{- /* nor here */ -}} c", "a  bc"),
        ("{{ $ | len }} {{`raw\\`}} {{\"a\\tb\\\"\"}} {{-3}} {{1.5}}", "10 raw\\ a\tb\" -3 1.5"),
    ] {
        assert_eq!(print(template), text, "{template}");
    }
}

#[test]
fn functions_do_what_docker_says_of_them() {
    for (template, text) in [
        ("{{upper .Name}} {{.Name | title}} {{lower \"ABC\"}}", "BRIDGE Bridge abc"),
        ("{{pad .Name 1 2}}|{{truncate .Name 3}}|{{truncate .Name 99}}", " bridge  |bri|bridge"),
        ("{{split .Name \"i\"}} {{join (split .Name \"i\") \"-\"}}", "[br dge] br-dge"),
        (
            "{{printf \"%8s|%-8s|%q|%.2s|%03d|%+d|%.2f|%t|%x|%%\" .Name .Id .Name .Name 7 7 .Ratio true 255}}",
            "  bridge|4b932bb9e909|\"bridge\"|br|007|+7|1.50|true|ff|%",
        ),
        ("{{printf \"%d %s\" .Name}} {{printf \"\" 1}}", "%!d(string=bridge) %!s(MISSING) %!(EXTRA int=1)"),
        (
            "{{eq .Name \"a\" \"bridge\"}} {{ne .Count 3}} {{lt 1 2}} {{le 2 2}} {{gt 1.5 1}} {{ge \"a\" \"b\"}}",
            "true false true true true false",
        ),
        ("{{and 1 0}} {{or \"\" \"x\"}} {{not 1}} {{or true (index .IPAM.Config 9)}}", "0 x false true"),
        ("{{print 1 2 \"a\" \"b\" 3}} {{slice .Name 1 3}} {{slice .Name 4}}", "1 2ab3 ri ge"),
    ] {
        // Go prints no space between a string and a number: `print 1 2 "a" "b" 3` is `1 2ab3`.
        assert_eq!(print(template), text, "{template}");
    }
}

#[test]
fn faults_have_the_words_of_dockers_client() {
    for (template, text) in [
        ("{{.Foo}}", "template: :1:2: executing \"\" at <.Foo>: map has no entry for key \"Foo\""),
        ("{{.Name", "template: :1: unclosed action"),
        ("{{foo .}}", "template: :1: function \"foo\" not defined"),
        ("{{.Name | foo}}", "template: :1: function \"foo\" not defined"),
        ("{{if}}", "template: :1: missing value for if"),
        ("{{end}}", "template: :1: unexpected {{end}}"),
        ("{{else}}", "template: :1: unexpected {{else}}"),
        ("{{range .Containers}}", "template: :1: unexpected EOF"),
        ("\n{{$y}}", "template: :2: undefined variable \"$y\""),
        ("{{\"a", "template: :1: unterminated quoted string"),
        ("{{break}}", "template: :1: {{break}} outside {{range}}"),
        ("{{nil}}", "template: :1:2: executing \"\" at <nil>: nil is not a command"),
        (
            "{{index .IPAM.Config 5}}",
            "template: :1:2: executing \"\" at <index .IPAM.Config 5>: error calling index: index out of range: 5",
        ),
        ("{{len 3}}", "template: :1:2: executing \"\" at <len 3>: error calling len: len of type int"),
        (
            "{{eq .Name 3}}",
            "template: :1:2: executing \"\" at <eq .Name 3>: error calling eq: incompatible types for comparison",
        ),
        (
            "{{.Name.Foo}}",
            "template: :1:7: executing \"\" at <.Name.Foo>: can't evaluate field Foo in type string",
        ),
        (
            "{{range .Name}}{{end}}",
            "template: :1:8: executing \"\" at <.Name>: range can't iterate over bridge",
        ),
    ] {
        assert_eq!(refusal(template), format!("template parsing error: {text}"), "{template}");
    }
    for template in
        ["{{", "{{}}", "{{(}}", "{{.A | }}", "{{define \"x\"}}", "{{ . )}}", "{{$x :=}}", "{{'a'}}", "{{1x}}"]
    {
        assert!(matches!(Template::parse(template), Err(FormatError::Parse(_))), "{template}");
    }
    assert!(Template::parse(&"{{if .}}".repeat(100_000)).is_err(), "depth is bounded");
    assert!(Template::parse(&format!("{{{{{}", "(".repeat(100_000))).is_err(), "depth is bounded");
}

fn listing() -> Listing {
    let row = |name: &str, id: &str, label: &str| Row {
        cells: BTreeMap::from([("ID", id.to_owned()), ("Name", name.to_owned())]),
        labels: BTreeMap::from([("team".to_owned(), label.to_owned())]),
    };
    Listing {
        titles: &[("ID", "NETWORK ID"), ("Name", "NAME")],
        table: "{{.ID}}\\t{{.Name}}",
        quiet: "ID",
        rows: vec![row("blue", "0123456789ab", "a"), row("red", "ba9876543210", "b\x1b")],
    }
}

#[test]
fn lists_are_tables_lines_or_json() {
    let show = |format, quiet| listing().show(format, quiet).expect("shown");
    let table = "NETWORK ID     NAME\n0123456789ab   blue\nba9876543210   red\n";
    assert_eq!(show(None, false), table);
    assert_eq!(show(Some("table"), false), table);
    assert_eq!(show(None, true), "0123456789ab\nba9876543210\n");
    assert_eq!(show(Some("{{.Name}}\\t{{.ID}}"), true), "blue\t0123456789ab\nred\tba9876543210\n");
    assert_eq!(
        show(Some("json"), false),
        "{\"ID\":\"0123456789ab\",\"Name\":\"blue\"}\n{\"ID\":\"ba9876543210\",\"Name\":\"red\"}\n"
    );
    assert_eq!(
        show(Some("table {{.Name}}\\t{{.Label \"team\"}}"), false),
        "NAME      team\nblue      a\nred       b\\x1b\n"
    );
    let refused = listing().show(Some("{{.Foo}}"), false).expect_err("no such field").to_string();
    assert!(refused.contains("executing \"\" at <.Foo>"), "{refused}");
}
