//! HTTP requests: what the plugin decides, what the host decides, and redirects.

use std::sync::Arc;
use std::time::Duration;

use outrigger_services::{TrustedRoots, Verdict};
use outrigger_wire::proto::host::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;

use crate::world::*;

const GRANT: &str =
    "    egress: [{protocol: tcp, hosts: [api.example.com, other.example.com], ports: [80, 443]}]";
const OTHER: &str = "151.101.1.1";

/// A world in which both names lead to servers of ours.
async fn world_of(
    api: impl Fn(&Seen) -> Vec<u8> + Clone + Send + Sync + 'static,
) -> (World, Visits, Visits) {
    let world = World::default();
    world.book.answers("api.example.com", &[&[PUBLIC]]);
    world.book.answers("other.example.com", &[&[OTHER]]);
    let (address, visits) = http_server(api).await;
    world.board.route(&format!("{PUBLIC}:80"), address);
    let (address, other) = http_server(|_| ok("other")).await;
    world.board.route(&format!("{OTHER}:80"), address);
    (world, visits, other)
}

fn header(name: &str, value: &str) -> Header {
    Header {
        name: name.into(),
        value: bytes::Bytes::copy_from_slice(value.as_bytes()),
    }
}

fn with(url: &str, headers: &[(&str, &str)]) -> HttpRequest {
    HttpRequest {
        headers: headers
            .iter()
            .map(|(name, value)| header(name, value))
            .collect(),
        ..get(url)
    }
}

fn value(response: &HttpResponse, name: &str) -> Option<String> {
    let found = response.headers.iter().find(|header| header.name == name)?;
    Some(String::from_utf8(found.value.to_vec()).expect("text"))
}

/// The first bytes of a TLS client that looks for `name`.
pub(crate) fn greeting(name: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = name.to_owned().try_into().unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn a_request_arrives_as_it_was_meant_and_its_reply_comes_back() {
    let (world, visits, _) = world_of(|_| ok("hello")).await;
    let mut plugin = world.plugin(GRANT).await;
    let headers = [
        ("X-Mine", "1"),
        ("x-mine", "2"),
        ("Host", "API.example.com"),
    ];
    let request = with("http://API.example.com/a/../b?q=secret#part", &headers);
    let response = plugin.http(request).await.expect("a reply");
    assert_eq!((response.status, &response.body[..]), (200, &b"hello"[..]));
    assert_eq!(value(&response, "x-kind").as_deref(), Some("test"));
    let seen = visits.last();
    assert_eq!(seen.line, "GET /a/../b?q=secret HTTP/1.1");
    assert!(seen.has("host: api.example.com"), "{}", seen.head);
    assert!(
        seen.has("x-mine: 1") && seen.has("x-mine: 2"),
        "{}",
        seen.head
    );
    assert!(seen.has("connection: close"));
    let record = plugin.record().await;
    assert_eq!(
        (record.operation, record.code, record.bytes),
        ("http", "ok", 5)
    );
    assert!(!record.argument.contains("secret"), "{record}");
    assert!(
        record.rule.contains(&format!("dialled {PUBLIC}:80")),
        "{record}"
    );
}

#[tokio::test]
async fn a_body_is_sent_with_its_length() {
    let (world, visits, _) = world_of(|_| ok("")).await;
    let plugin = world.plugin(GRANT).await;
    for (method, body) in [
        ("POST", "text"),
        ("PUT", ""),
        ("X-OWN", "1"),
        ("DELETE", "x"),
    ] {
        let request = HttpRequest {
            method: method.into(),
            body: body.into(),
            headers: vec![header("content-length", &body.len().to_string())],
            ..get("http://api.example.com")
        };
        plugin.http(request).await.expect("a reply");
        let seen = visits.last();
        assert_eq!(seen.line, format!("{method} / HTTP/1.1"));
        assert_eq!(seen.body, body.as_bytes());
        assert!(
            seen.has(&format!("content-length: {}", body.len())),
            "{}",
            seen.head
        );
    }
}

#[tokio::test]
async fn urls_that_could_be_read_in_two_ways_are_refused() {
    let (world, visits, _) = world_of(|_| ok("")).await;
    let plugin = world.plugin(GRANT).await;
    for url in [
        "",
        "api.example.com",
        "//api.example.com/",
        "ftp://api.example.com/",
        "http://user@api.example.com/",
        "http://user:password@api.example.com/",
        "http://evil.example@api.example.com/",
        "http://api.example.com\\@evil.example/",
        "http://api.example.com:80:81/",
        "http://api.example.com:/",
        "http://api.example.com:0x50/",
        "http://api.example.com /",
        "http://api.example.com/ HTTP/1.1\r\nX-Injected: 1",
        "http://api.example.com/\u{0}",
        "http://[api.example.com]/",
        "http://[::1/",
    ] {
        let status = plugin.get(url).await.map(|_| ()).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{url:?}: {status}");
    }
    assert!(visits.all().is_empty());
    assert!(world.book.asked().is_empty());
}

#[tokio::test]
async fn net_http_host_mismatch_and_header_injection_are_refused() {
    let (world, visits, _) = world_of(|_| ok("")).await;
    let plugin = world.plugin(GRANT).await;
    for (name, value) in [
        ("Host", "evil.example"),
        ("host", "api.example.com.evil.example"),
        ("host", "api.example.com:81"),
        ("Content-Length", "5"),
        ("Transfer-Encoding", "chunked"),
        ("Connection", "close, X-Forwarded-For"),
        ("Keep-Alive", "1"),
        ("Proxy-Connection", "x"),
        ("Proxy-Authorization", "x"),
        ("TE", "trailers"),
        ("Trailer", "x"),
        ("Expect", "100-continue"),
        ("HTTP2-Settings", "x"),
        ("X-A", "1\r\nHost: evil.example"),
        ("X-A", "1\nX-B: 2"),
        ("X-A", "\0"),
        ("X-A: 1\r\nX-B", "2"),
        ("X A", "1"),
        ("", "1"),
        ("é", "1"),
    ] {
        let request = with("http://api.example.com/", &[(name, value)]);
        let status = plugin.http(request).await.map(|_| ()).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{name:?}: {status}");
    }
    let many: Vec<_> = (0..200).map(|_| ("x-a", "1")).collect();
    let long = "x".repeat(70_000);
    for headers in [&many[..], &[("x-a", &*long)]] {
        let status = plugin.http(with("http://api.example.com/", headers)).await;
        assert_eq!(
            status.map(|_| ()).unwrap_err().code(),
            Code::InvalidArgument
        );
    }
    assert!(visits.all().is_empty());
}

#[tokio::test]
async fn net_connect_relay_and_upgrades_are_refused() {
    let (world, visits, _) = world_of(|_| ok("")).await;
    let plugin = world.plugin(GRANT).await;
    for method in ["CONNECT", "connect"] {
        let request = HttpRequest {
            method: method.into(),
            ..get("http://api.example.com/")
        };
        let status = plugin.http(request).await.map(|_| ()).unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{status}");
        assert!(
            status.message().contains("CONNECT is not supported"),
            "{status}"
        );
    }
    let request = with("http://api.example.com/", &[("Upgrade", "websocket")]);
    let status = plugin.http(request).await.map(|_| ()).unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status}");
    for method in ["GET /x HTTP/1.1\r\nHost: evil\r\n\r\nGET", "G T", "é"] {
        let request = HttpRequest {
            method: method.into(),
            ..get("http://api.example.com/")
        };
        let status = plugin.http(request).await.map(|_| ()).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{method:?}");
    }
    assert!(visits.all().is_empty());
}

#[tokio::test]
async fn net_plain_http_absolute_form_is_never_sent() {
    let (world, visits, _) = world_of(|_| ok("")).await;
    let plugin = world.plugin(GRANT).await;
    let url = "http://api.example.com/http://evil.example/";
    plugin.get(url).await.expect("a path like any other");
    assert_eq!(visits.last().line, "GET /http://evil.example/ HTTP/1.1");
    plugin
        .get("http://api.example.com?x=1")
        .await
        .expect("a reply");
    assert_eq!(visits.last().line, "GET /?x=1 HTTP/1.1");
}

#[tokio::test]
async fn redirects_are_reported_and_followed_only_when_asked_for() {
    let (world, visits, other) = world_of(|seen| match seen.line.as_str() {
        "GET /there HTTP/1.1" => ok("there"),
        "GET /away HTTP/1.1" => redirect(307, "http://other.example.com/x"),
        "GET /loop HTTP/1.1" => redirect(302, "/loop"),
        _ => redirect(302, "there"),
    })
    .await;
    let mut plugin = world.plugin(GRANT).await;
    let response = plugin
        .get("http://api.example.com/")
        .await
        .expect("a reply");
    assert_eq!(response.status, 302);
    assert_eq!(value(&response, "location").as_deref(), Some("there"));
    plugin.record().await;

    let follow = |url: &str, count| HttpRequest {
        follow_redirects: count,
        headers: vec![
            header("Authorization", "secret"),
            header("Cookie", "secret"),
            header("Cookie2", "secret"),
            header("X-Api-Key", "secret"),
            header("Private-Token", "secret"),
            header("X-A", "1"),
            header("Accept", "text/plain"),
            header("User-Agent", "tester"),
        ],
        ..get(url)
    };
    let response = plugin
        .http(follow("http://api.example.com/", 3))
        .await
        .expect("a reply");
    assert_eq!((response.status, &response.body[..]), (200, &b"there"[..]));
    assert_eq!(response.url, "http://api.example.com/there");
    for credential in ["authorization", "cookie2", "x-api-key", "private-token"] {
        assert!(visits.last().names(credential), "{credential}");
    }
    let records = [plugin.record().await, plugin.record().await];
    let shown = records.map(|record| (record.argument.contains("redirect=true"), record.code));
    assert_eq!(shown, [(false, "ok"), (true, "ok")]);

    let response = plugin
        .http(follow("http://api.example.com/away", 1))
        .await
        .expect("a reply");
    assert_eq!(response.url, "http://other.example.com/x");
    let seen = other.last();
    // Whatever may be a credential stays; what is only wanted goes along.
    assert!(
        !seen.head.contains("secret") && !seen.names("x-a"),
        "{}",
        seen.head
    );
    for field in [
        "accept: text/plain",
        "user-agent: tester",
        "host: other.example.com",
    ] {
        assert!(seen.has(field), "{field}: {}", seen.head);
    }

    let before = visits.all().len();
    let response = plugin
        .http(follow("http://api.example.com/loop", 10))
        .await
        .expect("a reply");
    assert_eq!((response.status, visits.all().len() - before), (302, 11));
    let status = plugin.http(follow("http://api.example.com/loop", 11)).await;
    assert_eq!(
        status.map(|_| ()).unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn redirects_change_the_method_as_they_should() {
    let (world, visits, _) = world_of(|seen| {
        let path = seen.line.split(' ').nth(1).unwrap_or_default();
        match path.trim_start_matches('/').parse() {
            Ok(status) => redirect(status, "/end"),
            Err(_) => ok(""),
        }
    })
    .await;
    let plugin = world.plugin(GRANT).await;
    for (status, method, then, body) in [
        (301, "POST", "GET", ""),
        (302, "POST", "GET", ""),
        (303, "PUT", "GET", ""),
        (303, "HEAD", "HEAD", ""),
        (307, "POST", "POST", "text"),
        (308, "PUT", "PUT", "text"),
        (302, "PUT", "PUT", "text"),
    ] {
        let request = HttpRequest {
            method: method.into(),
            body: (if method == "HEAD" { "" } else { "text" }).into(),
            headers: vec![header("content-type", "text/plain")],
            follow_redirects: 1,
            ..get(&format!("http://api.example.com/{status}"))
        };
        plugin.http(request).await.expect("a reply");
        let seen = visits.last();
        assert_eq!(
            seen.line,
            format!("{then} /end HTTP/1.1"),
            "{status} {method}"
        );
        assert_eq!(seen.body, body.as_bytes(), "{status} {method}");
        let typed = method == "HEAD" || then == method;
        assert_eq!(seen.names("content-type"), typed, "{status} {method}");
    }
}

#[tokio::test]
async fn a_body_follows_no_redirect_to_another_origin() {
    let (world, visits, other) = world_of(|seen| {
        let status = seen.line.split(['/', ' ']).nth(2).unwrap_or_default();
        redirect(status.parse().unwrap_or(307), "http://other.example.com/x")
    })
    .await;
    let plugin = world.plugin(GRANT).await;
    let send = |status: u16, body: &'static str| HttpRequest {
        method: "POST".into(),
        body: body.into(),
        headers: vec![header("content-type", "text/plain")],
        follow_redirects: 3,
        ..get(&format!("http://api.example.com/{status}"))
    };
    for status in [307, 308] {
        let response = plugin.http(send(status, "text")).await.expect("a reply");
        // It is reported: whoever wants to send it there can.
        assert_eq!((response.status, other.all().len()), (u32::from(status), 0));
        assert_eq!(
            value(&response, "location").as_deref(),
            Some("http://other.example.com/x")
        );
        assert_eq!(visits.last().body, b"text");
    }
    for (status, body, line) in [
        (303, "text", "GET /x HTTP/1.1"),
        (302, "text", "GET /x HTTP/1.1"),
        (307, "", "POST /x HTTP/1.1"),
    ] {
        let response = plugin.http(send(status, body)).await.expect("a reply");
        assert_eq!((response.status, &response.body[..]), (200, &b"other"[..]));
        assert_eq!(other.last().line, line);
        assert!(other.last().body.is_empty() && !other.last().names("content-type"));
    }
}

#[tokio::test]
async fn a_field_of_a_reply_on_several_lines_is_one_value() {
    let (world, _, _) = world_of(|_| {
        b"HTTP/1.1 200 OK\r\nX-A: one\r\n two\r\n\tthree\r\nX-B: 4\r\nContent-Length:\r\n 2\r\n\r\nok".to_vec()
    })
    .await;
    let plugin = world.plugin(GRANT).await;
    let response = plugin
        .get("http://api.example.com/")
        .await
        .expect("a reply");
    assert_eq!(&response.body[..], b"ok");
    let joined = value(&response, "x-a").expect("there");
    let words: Vec<&str> = joined.split_whitespace().collect();
    assert_eq!(words, ["one", "two", "three"]);
    assert!(!joined.contains(['\r', '\n']), "{joined:?}");
    assert_eq!(value(&response, "x-b").as_deref(), Some("4"));
}

#[tokio::test]
async fn net_redirect_to_private_goes_through_the_same_door() {
    let target = Arc::new(std::sync::Mutex::new(String::new()));
    let location = target.clone();
    let (world, _, _) = world_of(move |_| redirect(302, &location.lock().unwrap())).await;
    world
        .book
        .answers("other.example.com", &[&["169.254.169.254"]]);
    let mut plugin = world.plugin(GRANT).await;
    let mut asked = 0;
    for (to, code, queries) in [
        (
            "http://169.254.169.254/latest/meta-data/",
            Code::PermissionDenied,
            1,
        ),
        ("http://127.0.0.1/", Code::PermissionDenied, 1),
        ("http://[::1]/", Code::PermissionDenied, 1),
        ("http://2130706433/", Code::InvalidArgument, 1),
        ("http://evil.example/", Code::PermissionDenied, 1),
        ("//evil.example/", Code::PermissionDenied, 1),
        ("http://api.example.com:22/", Code::PermissionDenied, 1),
        ("http://other.example.com/", Code::PermissionDenied, 2),
        (
            "http://user@other.example.com/",
            Code::FailedPrecondition,
            1,
        ),
        ("file:///etc/passwd", Code::FailedPrecondition, 1),
        ("gopher://api.example.com/", Code::FailedPrecondition, 1),
    ] {
        *target.lock().unwrap() = to.into();
        let request = HttpRequest {
            follow_redirects: 5,
            ..get("http://api.example.com/")
        };
        let status = plugin.http(request).await.map(|_| ()).unwrap_err();
        assert_eq!(status.code(), code, "{to}: {status}");
        assert_eq!(world.book.asked().len() - asked, queries, "{to}");
        asked = world.book.asked().len();
    }
    let mut refused = 0;
    while let Some(record) = plugin.audit.try_recv() {
        refused += usize::from(record.verdict == Verdict::Refused);
    }
    assert_eq!(refused, 8);
    assert!(
        world
            .board
            .dialled()
            .iter()
            .all(|dialled| *dialled == format!("{PUBLIC}:80"))
    );
}

#[tokio::test]
async fn a_reply_that_is_larger_than_a_message_needs_a_stream() {
    const SIZE: usize = 64 << 20;
    let world = World::default();
    world.book.answers("api.example.com", &[&[PUBLIC]]);
    let address = server(async |mut stream| {
        let mut head = [0; 4096];
        let count = stream.read(&mut head).await.unwrap_or(0);
        // One of two ways to say where the body ends.
        let sized = head[..count].starts_with(b"GET /sized");
        let length = if sized {
            format!("Content-Length: {SIZE}\r\n")
        } else {
            String::new()
        };
        let _ = stream
            .write_all(format!("HTTP/1.1 200 OK\r\n{length}\r\n").as_bytes())
            .await;
        let part = vec![7; 1 << 20];
        for _ in 0..SIZE / part.len() {
            if stream.write_all(&part).await.is_err() {
                return;
            }
        }
        let _ = stream.shutdown().await;
    });
    world.board.route(&format!("{PUBLIC}:80"), address.await);
    let mut plugin = world.plugin(GRANT).await;
    for url in [
        "http://api.example.com/sized",
        "http://api.example.com/open",
    ] {
        let status = plugin.get(url).await.map(|_| ()).unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(status.message().contains("HttpStream"), "{status}");
        plugin.record().await;
        let (head, bytes) = plugin.http_stream(get(url)).await.expect("a reply");
        assert_eq!((head.status, bytes), (200, SIZE as u64));
        let record = plugin.record().await;
        assert_eq!(
            (record.operation, record.bytes),
            ("http_stream", SIZE as u64)
        );
    }
}

#[tokio::test]
async fn sixty_four_mebibytes_go_up_in_pieces_of_a_message() {
    let (world, visits, _) = world_of(|seen| ok(&seen.body.len().to_string())).await;
    let plugin = world.plugin(GRANT).await;
    for _ in 0..22 {
        let request = HttpRequest {
            method: "POST".into(),
            body: vec![1; 3 << 20].into(),
            ..get("http://api.example.com/")
        };
        let response = plugin.http(request).await.expect("a reply");
        assert_eq!(&response.body[..], (3 << 20).to_string().as_bytes());
    }
    assert_eq!(visits.all().len(), 22);
}

#[tokio::test]
async fn a_stream_that_is_given_up_closes_its_connection() {
    let world = World::default();
    world.book.answers("api.example.com", &[&[PUBLIC]]);
    let (sender, mut closed) = tokio::sync::mpsc::channel(1);
    let address = server(move |mut stream| {
        let sender = sender.clone();
        async move {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nsome").await;
            while let Ok(()) = stream.write_all(&[0; 65536]).await {}
            let _ = sender.send(()).await;
        }
    });
    world.board.route(&format!("{PUBLIC}:80"), address.await);
    let mut plugin = world.plugin(GRANT).await;
    let request = get("http://api.example.com/");
    let mut parts: tonic::Streaming<HttpStreamResponse> =
        plugin.start("HttpStream", request).await.expect("a stream");
    parts.message().await.expect("a head").expect("a head");
    drop(parts);
    let closed = tokio::time::timeout(PATIENCE, closed.recv()).await;
    closed.expect("in time").expect("closed");
    assert_eq!(plugin.record().await.code, "cancelled");
}

#[tokio::test]
async fn replies_that_are_none_fail_and_name_no_more_than_that() {
    let world = World::default();
    world.book.answers("api.example.com", &[&[PUBLIC]]);
    let plugin = world.plugin(GRANT).await;
    let many = "X-A: 1\r\n".repeat(500);
    let endless = "X".repeat(1 << 20);
    for (reply, codes) in [
        (String::new(), &[Code::FailedPrecondition][..]),
        (
            "SSH-2.0-OpenSSH_9.9\r\n".into(),
            &[Code::FailedPrecondition],
        ),
        (
            "HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n".into(),
            &[Code::FailedPrecondition],
        ),
        (
            format!("HTTP/1.1 200 OK\r\n{many}\r\n"),
            &[Code::FailedPrecondition],
        ),
        (
            format!("HTTP/1.1 200 OK\r\nX-A: {endless}"),
            &[Code::FailedPrecondition],
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort".into(),
            &[Code::FailedPrecondition],
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx".into(),
            &[Code::FailedPrecondition],
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".into(),
            &[Code::FailedPrecondition],
        ),
    ] {
        let shown: String = reply.chars().take(60).collect();
        let (address, _) = http_server(move |_| reply.clone().into_bytes()).await;
        world.board.route(&format!("{PUBLIC}:80"), address);
        let status = plugin
            .get("http://api.example.com/")
            .await
            .map(|_| ())
            .unwrap_err();
        assert!(codes.contains(&status.code()), "{shown:?}: {status}");
    }
}

#[tokio::test]
async fn connection_fields_and_trailers_of_a_reply_stay_here_and_contents_are_untouched() {
    let (world, _, _) = world_of(|_| {
        let mut reply = b"HTTP/1.1 200 OK\r\nConnection: close\r\nKeep-Alive: x\r\nTransfer-Encoding: chunked\r\n\
            Content-Encoding: gzip\r\nTrailer: x-t\r\nX-Bytes: \xe9\r\n\r\n"
            .to_vec();
        reply.extend(b"4\r\n\x1f\x8b\x08\x00\r\n0\r\nX-T: 1\r\n\r\n");
        reply
    })
    .await;
    let plugin = world.plugin(GRANT).await;
    let response = plugin
        .get("http://api.example.com/")
        .await
        .expect("a reply");
    assert_eq!(&response.body[..], b"\x1f\x8b\x08\x00");
    let mut names: Vec<&str> = response.headers.iter().map(|field| &*field.name).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-encoding", "x-bytes"]);
}

#[tokio::test]
async fn a_server_that_does_not_answer_costs_the_time_that_was_given() {
    let world = World::default();
    world.book.answers("api.example.com", &[&[PUBLIC]]);
    let address = server(async |mut stream| {
        // One byte of a head at a time, for ever.
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX-A: ").await;
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    world.board.route(&format!("{PUBLIC}:80"), address.await);
    let plugin = world.plugin(GRANT).await;
    let request = HttpRequest {
        timeout_ms: 200,
        ..get("http://api.example.com/")
    };
    let status = plugin.http(request).await.map(|_| ()).unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
}

/// A TLS server with a certificate for `name`, and the PEM that trusts it.
async fn tls_server(name: &str) -> (std::net::SocketAddr, String, Visits) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key =
        rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("a server");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let visits = Visits::default();
    let seen = visits.clone();
    let address = server(move |stream| {
        let (acceptor, seen) = (acceptor.clone(), seen.clone());
        async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let name = stream
                .get_ref()
                .1
                .server_name()
                .unwrap_or("none")
                .to_owned();
            answer(stream, &seen, |_| ok(&name)).await;
        }
    });
    (address.await, cert.pem(), visits)
}

#[tokio::test]
async fn tls_is_for_the_matched_name_and_trusted_by_the_hosts_roots() {
    let mut world = World::default();
    world.book.answers("api.example.com", &[&[PUBLIC]]);
    world.book.answers("other.example.com", &[&[PUBLIC]]);
    let (address, pem, visits) = tls_server("api.example.com").await;
    world.board.route(&format!("{PUBLIC}:443"), address);
    world.roots = Some(
        TrustedRoots::none()
            .with_pem(pem.as_bytes())
            .expect("a certificate"),
    );
    let plugin = world.plugin(GRANT).await;
    let request = with(
        "https://API.example.com./",
        &[("Host", "api.example.com:443")],
    );
    let response = plugin.http(request).await.expect("a reply");
    assert_eq!(
        &response.body[..],
        b"api.example.com",
        "the name in the greeting"
    );
    assert!(visits.last().has("host: api.example.com"));
    let (head, _) = plugin
        .http_stream(get("https://api.example.com/"))
        .await
        .expect("a reply");
    assert_eq!(head.status, 200);

    // The same server under a name that its certificate is not for.
    let status = plugin
        .get("https://other.example.com/")
        .await
        .map(|_| ())
        .unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert!(status.message().contains("TLS failed"), "{status}");
    assert_eq!(visits.all().len(), 2);

    // And without trust in it.
    world.roots = Some(
        TrustedRoots::none()
            .with_pem(tls_server("x.example").await.1.as_bytes())
            .expect("another"),
    );
    let plugin = world.plugin(GRANT).await;
    let status = plugin
        .get("https://api.example.com/")
        .await
        .map(|_| ())
        .unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert_eq!(visits.all().len(), 2);
}

#[tokio::test]
async fn a_server_without_tls_is_no_https_server() {
    let world = World::default();
    world.book.answers("api.example.com", &[&[PUBLIC]]);
    let (address, _) = http_server(|_| ok("plain")).await;
    world.board.route(&format!("{PUBLIC}:443"), address);
    let plugin = world.plugin(GRANT).await;
    let request = HttpRequest {
        timeout_ms: 5000,
        ..get("https://api.example.com/")
    };
    assert!(plugin.http(request).await.is_err());
}

#[test]
fn roots_come_from_pem_only() {
    for text in [
        "",
        "text",
        "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n",
    ] {
        let error = TrustedRoots::none().with_pem(text.as_bytes()).unwrap_err();
        assert_eq!(error.code(), "no-certificates");
    }
}

#[tokio::test]
async fn a_streamed_reply_that_nobody_takes_ends_in_time() {
    let mut world = World::default();
    world.network.total_timeout = Duration::from_millis(300);
    let (sender, over) = tokio::sync::oneshot::channel();
    let sender = Arc::new(std::sync::Mutex::new(Some(sender)));
    let address = server(move |mut stream| {
        let sender = sender.lock().unwrap().take();
        async move {
            let head = b"HTTP/1.1 200 OK\r\n\r\n";
            let mut wrote = stream.write_all(head).await;
            while wrote.is_ok() {
                wrote = stream.write_all(&[b'x'; 64 << 10]).await;
            }
            let _ = sender.map(|sender| sender.send(()));
        }
    })
    .await;
    let port = address.port();
    let grant = format!("    egress: [{{protocol: tcp, hosts: [127.0.0.1], ports: [{port}]}}]");
    let mut plugin = world.plugin(&grant).await;
    let request = get(&format!("http://127.0.0.1:{port}/"));
    let mut parts: tonic::Streaming<HttpStreamResponse> =
        plugin.start("HttpStream", request).await.expect("a stream");
    // The connection is closed, and recorded, while the plugin takes nothing.
    let closed = tokio::time::timeout(PATIENCE, over).await;
    closed.expect("in time").expect("closed");
    let record = plugin.record().await;
    assert_eq!(
        (record.operation, record.code),
        ("http_stream", "network-timeout")
    );
    let status = loop {
        match parts.message().await {
            Ok(part) => assert!(part.is_some(), "an end without a word"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("total_timeout"), "{status}");
}
