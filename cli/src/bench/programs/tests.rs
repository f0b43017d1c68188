//! What programs of others print, and what is read from it.

use super::http::{Summary, summary};
use super::redis::{Answered, answered};
use super::running::listens;
use super::*;

#[test]
fn of_iperf3_what_arrived_counts() {
    let report = r#"{"end":{"sum_sent":{"bits_per_second":9e9},"sum_received":{"bits_per_second":8.5e9}}}"#;
    assert_eq!(iperf3::received(report).expect("a rate"), 8.5e9);
    let refused =
        iperf3::received(r#"{"start":{},"end":{},"error":"unable to connect"}"#).expect_err("refused");
    assert_eq!(refused.to_string(), "iperf3: unable to connect");
    assert!(
        iperf3::received(r#"{"end":{"sum_received":{"bits_per_second":0}}}"#).is_err(),
        "nothing arrived"
    );
    assert!(iperf3::received("iperf3: error").is_err());
}

#[test]
fn of_redis_rates_count_and_latencies_where_they_are_told() {
    let set = |latency| Answered { request: "SET".to_owned(), per_second: 50000.5, latency };
    let old = "\"SET\",\"50000.50\"\n\"GET\",\"40000.00\"\n";
    assert_eq!(answered(old).expect("two lines")[0], set(None));
    let new = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\"p95_latency_ms\",\
               \"p99_latency_ms\",\"max_latency_ms\"\n\
               \"SET\",\"50000.50\",\"0.5\",\"0.1\",\"0.25\",\"0.9\",\"2.0\",\"9\"\n\
               \"GET\",\"40000.00\",\"0.5\",\"0.1\",\"0.5\",\"0.9\",\"1.0\",\"9\"\n";
    assert_eq!(answered(new).expect("two lines")[0], set(Some([250.0, 2000.0])));
    for wrong in ["", "Could not connect", "\"SET\",\"1.0\"\n", "\"SET\",\"0.00\"\n\"GET\",\"1.00\"\n"] {
        assert!(answered(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn of_wrk_the_summary_counts_unless_requests_failed() {
    let said = |errors| {
        format!(
            "Running 2s test\n\n{{\"requests\":10,\"octets\":2000,\"micros\":1000000,\"p50\":7,\"p99\":9,\
             \"errors\":{errors}}}\n"
        )
    };
    let whole = Summary { requests: 10, octets: 2000, micros: 1_000_000, p50: 7.0, p99: 9.0, errors: 0 };
    assert_eq!(summary(&said(0)).expect("a summary"), whole);
    assert_eq!(summary(&said(3)).expect_err("failures").to_string(), "wrk counts 3 errors");
    assert!(summary("unable to connect\n").is_err());
}

#[test]
fn a_server_is_there_once_its_port_listens() {
    let table = "  sl  local_address rem_address   st tx_queue\n   \
                 0: 0200010A:18EB 00000000:0000 0A 00000000:00000000\n   \
                 1: 0200010A:1F90 0100010A:C0DE 01 00000000:00000000\n";
    assert!(listens(table, 6379));
    assert!(!listens(table, 8080), "that is a connection");
    assert!(!listens(table, 0xc0de), "that is the other end's");
    assert!(!listens("", 6379));
}

#[test]
fn the_interface_of_a_way_is_read_and_missing_where_there_is_none() {
    assert_eq!(route::device_of("10.0.1.3 dev eth0 src 10.0.1.2 uid 0 \\    cache \n"), Some("eth0"));
    assert_eq!(route::device_of("RTNETLINK answers: Network is unreachable"), None);
}

#[test]
fn versions_are_found_in_what_programs_say_of_themselves() {
    for (said, version) in [
        ("iperf 3.12 (cJSON 1.7.15)\n", "3.12"),
        ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0", "7.0.15"),
        ("nginx version: nginx/1.22.1\n", "1.22.1"),
        ("wrk debian/4.1.0-3+b2 [epoll] Copyright", "4.1.0"),
    ] {
        assert_eq!(version_in(said), Some(version));
    }
    assert_eq!(version_in("a program of 2022."), None);
}

#[test]
fn times_are_told_in_whole_seconds_and_never_as_none() {
    let millis = |millis| whole_seconds(Duration::from_millis(millis));
    assert_eq!((millis(0), millis(300), millis(2000), millis(2001)), (1, 1, 2, 3));
}
