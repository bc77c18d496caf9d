//! Links and the proxy break as asked, and are whole again when healed.
#![allow(clippy::unwrap_used)]

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use dfs_e2e::net::{Direction, LinkFault, Links, OnceEffect};
use dfs_e2e::proxy::Proxy;
use dfs_runtime::net::Connection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SOON: Duration = Duration::from_secs(90);
/// Long enough for loopback to deliver what is not held back.
const MOMENT: Duration = Duration::from_millis(200);

/// Answers each byte with the same byte.
async fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.into_split();
                let _ended = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

async fn says(stream: &mut (impl Connection + ?Sized), text: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.write_all(text).await?;
    hears(stream, text.len()).await
}

async fn hears(stream: &mut (impl Connection + ?Sized), count: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; count];
    match tokio::time::timeout(SOON, stream.read_exact(&mut bytes)).await {
        Ok(read) => read.map(|_| bytes),
        Err(_) => Err(ErrorKind::TimedOut.into()),
    }
}

async fn is_silent(stream: &mut (impl Connection + ?Sized)) -> bool {
    tokio::time::timeout(MOMENT, stream.read_u8())
        .await
        .is_err()
}

#[tokio::test]
async fn a_cut_breaks_what_is_open_refuses_what_is_new_and_spares_other_links() {
    let (one, two) = (echo().await, echo().await);
    let links = Links::new();
    links.name(&one, "datanode-1");
    links.name(&two, "datanode-2");
    let connector = links.connector("tracker");
    let mut first = connector.connect(&one).await.unwrap();
    let mut second = connector.connect(&two).await.unwrap();
    assert_eq!(says(&mut first, b"hello").await.unwrap(), b"hello");
    let cut = links.inject("tracker", "datanode-1", LinkFault::cut());
    let error = hears(&mut first, 1).await.unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::ConnectionReset,
        "broken, not cleanly ended"
    );
    let error = connector.connect(&one).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(says(&mut second, b"hello").await.unwrap(), b"hello");
    links.connector("gateway").connect(&one).await.unwrap();
    links.remove(cut);
    let mut again = connector.connect(&one).await.unwrap();
    assert_eq!(says(&mut again, b"back").await.unwrap(), b"back");
}

#[tokio::test]
async fn patterns_name_all_of_a_role_and_isolation_is_both_ways() {
    let address = echo().await;
    let links = Links::new();
    links.name(&address, "datanode-7");
    links.inject("gateway-*", "datanode-*", LinkFault::cut());
    links
        .connector("gateway-1")
        .connect(&address)
        .await
        .err()
        .unwrap();
    links.connector("tracker").connect(&address).await.unwrap();
    links.heal();
    links.isolate("datanode-7", LinkFault::cut());
    links
        .connector("tracker")
        .connect(&address)
        .await
        .err()
        .unwrap();
    links
        .connector("datanode-7")
        .connect("127.0.0.1:1")
        .await
        .err()
        .unwrap();
    links.heal();
    links
        .connector("gateway-1")
        .connect(&address)
        .await
        .unwrap();
}

#[tokio::test]
async fn lost_bytes_vanish_one_way_and_the_connection_dies_when_the_link_heals() {
    for fault in [
        LinkFault::lose_forth(),
        LinkFault::lose_back(),
        LinkFault::black_hole(),
    ] {
        let address = echo().await;
        let links = Links::new();
        let connector = links.connector("a");
        let mut stream = connector.connect(&address).await.unwrap();
        assert_eq!(says(&mut stream, b"x").await.unwrap(), b"x");
        links.inject("a", "*", fault);
        stream.write_all(b"lost").await.unwrap();
        assert!(is_silent(&mut stream).await);
        let error = connector.connect(&address).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        links.heal();
        let error = hears(&mut stream, 1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        connector.connect(&address).await.unwrap();
    }
}

#[tokio::test]
async fn a_paused_link_holds_everything_and_loses_nothing() {
    let address = echo().await;
    let links = Links::new();
    let mut stream = links.connector("a").connect(&address).await.unwrap();
    links.inject("*", "*", LinkFault::paused());
    stream.write_all(b"held").await.unwrap();
    assert!(is_silent(&mut stream).await);
    links.heal();
    assert_eq!(hears(&mut stream, 4).await.unwrap(), b"held");
}

#[tokio::test]
async fn a_delayed_link_is_late() {
    let address = echo().await;
    let links = Links::new();
    let mut stream = links.connector("a").connect(&address).await.unwrap();
    links.inject("*", "*", LinkFault::delay(Duration::from_millis(50)));
    let start = Instant::now();
    assert_eq!(says(&mut stream, b"late").await.unwrap(), b"late");
    assert!(start.elapsed() >= Duration::from_millis(100), "both ways");
}

#[tokio::test]
async fn one_bit_flips_at_the_byte_asked_for_and_only_once() {
    let address = echo().await;
    let links = Links::new();
    let mut stream = links.connector("a").connect(&address).await.unwrap();
    let flip = links.once("a", "*", Direction::Back, 5, OnceEffect::Flip);
    assert_eq!(says(&mut stream, b"aaa").await.unwrap(), b"aaa");
    assert!(!flip.is_done());
    assert_eq!(says(&mut stream, b"aaaa").await.unwrap(), b"aa`a");
    assert!(flip.is_done());
    assert_eq!(says(&mut stream, b"aaaa").await.unwrap(), b"aaaa");
}

#[tokio::test]
async fn a_connection_breaks_after_exactly_so_many_bytes() {
    let address = echo().await;
    let links = Links::new();
    let mut stream = links.connector("a").connect(&address).await.unwrap();
    let cut = links.once("a", "*", Direction::Back, 6, OnceEffect::Cut);
    stream.write_all(b"0123456789").await.unwrap();
    let mut all = Vec::new();
    let error = stream.read_to_end(&mut all).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(all, b"012345");
    assert!(cut.is_done());
    let mut other = links.connector("a").connect(&address).await.unwrap();
    assert_eq!(
        says(&mut other, b"0123456789").await.unwrap(),
        b"0123456789"
    );
}

#[tokio::test]
async fn megabytes_pass_whole_and_a_half_closed_side_is_told() {
    let address = echo().await;
    let links = Links::new();
    let stream = links.connector("a").connect(&address).await.unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    let data: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 253) as u8).collect();
    let sent = data.clone();
    let writer = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut back = Vec::new();
    tokio::time::timeout(SOON, read.read_to_end(&mut back))
        .await
        .unwrap()
        .unwrap();
    writer.await.unwrap();
    assert!(back == data);
}

#[tokio::test]
async fn the_proxy_cuts_stalls_flips_and_heals_between_processes() {
    let address = echo().await;
    let proxy = Proxy::start(&address).await.unwrap();
    let door = proxy.address();
    let mut stream = TcpStream::connect(door).await.unwrap();
    assert_eq!(says(&mut stream, b"hello").await.unwrap(), b"hello");
    let flip = proxy.once(Direction::Forth, 0, OnceEffect::Flip);
    assert_eq!(says(&mut stream, b"abc").await.unwrap(), b"`bc");
    assert!(flip.is_done());
    proxy.set(LinkFault::paused());
    stream.write_all(b"x").await.unwrap();
    assert!(is_silent(&mut stream).await);
    proxy.set(LinkFault::cut());
    assert_eq!(
        hears(&mut stream, 1).await.unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    let mut refused = TcpStream::connect(door).await.unwrap();
    hears(&mut refused, 1).await.unwrap_err();
    proxy.heal();
    let mut stream = TcpStream::connect(door).await.unwrap();
    assert_eq!(says(&mut stream, b"hello").await.unwrap(), b"hello");
}
