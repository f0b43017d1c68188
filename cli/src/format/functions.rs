//! What a template can call: Go's built-in functions and those that Docker adds.

use std::cmp::Ordering;

use serde_json::Value;

use super::printf::printf;

/// Every function there is.
const NAMES: [&str; 23] = [
    "and", "eq", "ge", "gt", "index", "join", "json", "le", "len", "lower", "lt", "ne", "not", "or", "pad",
    "print", "printf", "println", "slice", "split", "title", "truncate", "upper",
];
/// Most spaces that `pad` adds on a side.
const MAX_PAD: usize = 4_096;

/// Whether there is a function of this name.
pub(super) fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

type Answer = Result<Value, String>;

/// Calls a function.
///
/// # Errors
/// Why the arguments are none of its.
pub(super) fn call(name: &str, arguments: &[Value]) -> Answer {
    match (name, arguments) {
        ("and", [_, ..]) => Ok(first_that(arguments, |value| !truth(value))),
        ("or", [_, ..]) => Ok(first_that(arguments, truth)),
        ("not", [value]) => Ok((!truth(value)).into()),
        ("eq", [first, others @ ..]) if !others.is_empty() => equals(first, others).map(Value::from),
        ("ne", [a, b]) => equals(a, std::slice::from_ref(b)).map(|equal| (!equal).into()),
        ("lt" | "le" | "gt" | "ge", [a, b]) => compare(name, a, b),
        ("len", [value]) => len(value),
        ("index", [value, keys @ ..]) => keys.iter().try_fold(value.clone(), index),
        ("slice", [value, bounds @ ..]) => slice(value, bounds),
        ("json", [value]) => serde_json::to_string(value).map(Value::from).map_err(|fault| fault.to_string()),
        ("print", _) => Ok(print(arguments).into()),
        ("println", _) => Ok((arguments.iter().map(text).collect::<Vec<_>>().join(" ") + "\n").into()),
        ("printf", [Value::String(format), values @ ..]) => printf(format, values).map(Value::from),
        ("lower", [Value::String(value)]) => Ok(value.to_lowercase().into()),
        ("upper", [Value::String(value)]) => Ok(value.to_uppercase().into()),
        ("title", [Value::String(value)]) => Ok(title(value).into()),
        ("split", [Value::String(value), Value::String(at)]) => Ok(split(value, at)),
        ("join", [Value::Array(parts), Value::String(with)]) => {
            Ok(parts.iter().map(text).collect::<Vec<_>>().join(with).into())
        }
        ("pad", [Value::String(value), before, after]) => pad(value, before, after),
        ("truncate", [Value::String(value), most]) => {
            Ok(value.chars().take(size(most)?).collect::<String>().into())
        }
        _ => Err(misused(name, arguments)),
    }
}

fn misused(name: &str, arguments: &[Value]) -> String {
    let kinds: Vec<_> = arguments.iter().map(kind).collect();
    format!("it does not take ({})", kinds.join(", ")).replace("()", "nothing")
        + &format!("; see the help of {name}")
}

/// What Go calls the type of a value.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    }
}

/// Whether Go takes the value for true: neither zero nor empty.
pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(elements) => !elements.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// A value as Go prints it.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(elements) => format!("[{}]", elements.iter().map(text).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => {
            let mut pairs: Vec<_> =
                fields.iter().map(|(key, value)| format!("{key}:{}", text(value))).collect();
            pairs.sort();
            format!("map[{}]", pairs.join(" "))
        }
    }
}

/// The first value that holds, else the last.
fn first_that(values: &[Value], holds: impl Fn(&Value) -> bool) -> Value {
    values.iter().find(|value| holds(value)).or(values.last()).cloned().unwrap_or(Value::Null)
}

fn equals(first: &Value, others: &[Value]) -> Result<bool, String> {
    for other in others {
        if order(first, other)? == Ordering::Equal {
            return Ok(true);
        }
    }
    Ok(false)
}

fn compare(name: &str, a: &Value, b: &Value) -> Answer {
    if matches!((a, b), (Value::Bool(_), _) | (Value::Null, _)) {
        return Err("invalid type for comparison".to_owned());
    }
    let order = order(a, b)?;
    Ok(match name {
        "lt" => order.is_lt(),
        "le" => order.is_le(),
        "gt" => order.is_gt(),
        _ => order.is_ge(),
    }
    .into())
}

fn order(a: &Value, b: &Value) -> Result<Ordering, String> {
    match (a, b) {
        (Value::String(a), Value::String(b)) => Ok(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Ok(a.cmp(b)),
        (Value::Null, Value::Null) => Ok(Ordering::Equal),
        (Value::Null, _) | (_, Value::Null) => Ok(Ordering::Less),
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => Ok(a.cmp(&b)),
            _ => a.as_f64().partial_cmp(&b.as_f64()).ok_or_else(|| "not comparable".to_owned()),
        },
        (Value::Array(_) | Value::Object(_), _) => Err("invalid type for comparison".to_owned()),
        _ => Err("incompatible types for comparison".to_owned()),
    }
}

fn len(value: &Value) -> Answer {
    match value {
        Value::String(text) => Ok(text.len().into()),
        Value::Array(elements) => Ok(elements.len().into()),
        Value::Object(fields) => Ok(fields.len().into()),
        other => Err(format!("len of type {}", kind(other))),
    }
}

fn index(value: Value, key: &Value) -> Answer {
    match (value, key) {
        // The zero value of what Docker's maps of free keys hold: labels and options.
        (Value::Object(mut fields), Value::String(key)) => {
            Ok(fields.remove(key).unwrap_or_else(|| "".into()))
        }
        (Value::Array(mut elements), Value::Number(at)) => {
            let index = at.as_u64().and_then(|at| usize::try_from(at).ok()).filter(|at| *at < elements.len());
            index.map(|index| elements.swap_remove(index)).ok_or_else(|| format!("index out of range: {at}"))
        }
        (Value::Null, _) => Err("index of untyped nil".to_owned()),
        (Value::Object(_) | Value::Array(_), key) => Err(format!("cannot index with type {}", kind(key))),
        (other, _) => Err(format!("can't index item of type {}", kind(&other))),
    }
}

fn size(value: &Value) -> Result<usize, String> {
    let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
    number.ok_or_else(|| format!("expected a whole number; got {}", text(value)))
}

fn slice(value: &Value, bounds: &[Value]) -> Answer {
    let len = match value {
        Value::String(text) => text.len(),
        Value::Array(elements) => elements.len(),
        other => return Err(format!("can't slice item of type {}", kind(other))),
    };
    let bounds = bounds.iter().map(size).collect::<Result<Vec<_>, _>>()?;
    let (from, to) = (bounds.first().copied().unwrap_or(0), bounds.get(1).copied().unwrap_or(len));
    let outside = || format!("index out of range: {from}:{to}");
    match value {
        Value::Array(elements) => elements.get(from..to).map(|part| part.to_vec().into()).ok_or_else(outside),
        other => text(other).get(from..to).map(Value::from).ok_or_else(outside),
    }
}

/// Operands in a row, with a space between two of which neither is a string.
fn print(values: &[Value]) -> String {
    let mut out = String::new();
    for (at, value) in values.iter().enumerate() {
        let apart = at.checked_sub(1).and_then(|before| values.get(before));
        if apart.is_some_and(|before| !before.is_string() && !value.is_string()) {
            out.push(' ');
        }
        out.push_str(&text(value));
    }
    out
}

fn title(text: &str) -> String {
    let mut before = ' ';
    let capital = |character: char| {
        let begins = !(before.is_alphanumeric() || before == '_' || before == '\'');
        before = character;
        if begins { character.to_uppercase().collect::<String>() } else { character.to_string() }
    };
    text.chars().map(capital).collect()
}

fn split(text: &str, at: &str) -> Value {
    if at.is_empty() {
        return text.chars().map(|character| Value::from(character.to_string())).collect();
    }
    text.split(at).map(Value::from).collect()
}

fn pad(text: &str, before: &Value, after: &Value) -> Answer {
    let (before, after) = (size(before)?.min(MAX_PAD), size(after)?.min(MAX_PAD));
    if text.is_empty() {
        return Ok("".into());
    }
    Ok(format!("{}{text}{}", " ".repeat(before), " ".repeat(after)).into())
}
