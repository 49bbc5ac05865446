//! A thousand connections leave nothing behind. A program of its own: it counts
//! the descriptors of its process.

mod support;
#[path = "network/world.rs"]
mod world;

use std::time::Instant;

use world::*;

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("proc").count()
}

#[tokio::test]
async fn a_thousand_connections_leave_no_descriptor_behind() {
    let world = World::default();
    let port = echo_server().await.port();
    let (web, _) = http_server(|_| ok("hello")).await;
    let web = web.port();
    let grant =
        format!("    egress: [{{protocol: tcp, hosts: [127.0.0.1], ports: [{port}, {web}]}}]");
    let mut plugin = world.plugin(&grant).await;
    let before = descriptors();
    for turn in 0..1000 {
        match turn % 4 {
            // One that ends in order, one that is given up, one that is refused,
            // and one for HTTP.
            0 => {
                let mut stream = plugin
                    .connect("127.0.0.1", port.into())
                    .await
                    .expect("granted");
                stream.send("hello").await;
                stream.finish().await;
                assert_eq!(stream.rest().await.expect("the rest"), b"hello");
                assert_eq!(stream.next().await.expect("the end"), Event::End);
            }
            1 => {
                let stream = plugin
                    .connect("127.0.0.1", port.into())
                    .await
                    .expect("granted");
                stream.send("hello").await;
            }
            2 => {
                let outcome = plugin.connect("127.0.0.1", 1).await;
                assert!(outcome.is_err());
            }
            _ => {
                let url = format!("http://127.0.0.1:{web}/");
                assert_eq!(plugin.get(&url).await.expect("a reply").status, 200);
            }
        }
    }
    // Everything is over when everything is recorded, a moment before the last
    // ones are closed.
    for _ in 0..1000 {
        plugin.record().await;
    }
    let started = Instant::now();
    while descriptors() > before {
        assert!(started.elapsed() < PATIENCE, "{} > {before}", descriptors());
        tokio::task::yield_now().await;
    }
    plugin.close().await;
}
