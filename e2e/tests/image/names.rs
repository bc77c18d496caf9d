//! A name server of a few names, on an address of loopback that nobody else listens on.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// Longest message of classic DNS.
const MESSAGE: usize = 512;
const HEADER: usize = 12;
const TYPE_A: [u8; 2] = [0, 1];
const CLASS_IN: [u8; 2] = [0, 1];

/// Answers until it is dropped.
pub(crate) struct Server {
    /// Where it listens, port 53: resolvers know no other.
    pub(crate) address: Ipv4Addr,
    asked: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

impl Server {
    /// Port 53 needs root.
    pub(crate) async fn start<const N: usize>(names: [(&str, [u8; 4]); N]) -> Self {
        let [low, high, ..] = std::process::id().to_le_bytes();
        let address = Ipv4Addr::new(127, 77, high, low.max(1));
        let socket = UdpSocket::bind((address, 53)).await.unwrap();
        let names: BTreeMap<String, [u8; 4]> = names
            .into_iter()
            .map(|(name, at)| (name.to_owned(), at))
            .collect();
        let asked = Arc::new(AtomicU32::new(0));
        let count = asked.clone();
        let task = tokio::spawn(async move {
            let mut message = [0; MESSAGE];
            while let Ok((length, from)) = socket.recv_from(&mut message).await {
                count.fetch_add(1, Ordering::Relaxed);
                if let Some(reply) = answer(&message[..length], &names) {
                    // Whoever asked may have gone.
                    let _sent = socket.send_to(&reply, from).await;
                }
            }
        });
        Self {
            address,
            asked,
            task,
        }
    }

    /// How many questions came.
    pub(crate) fn asked(&self) -> u32 {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The reply to one question: an address, no record of that type, or no such name.
fn answer(question: &[u8], names: &BTreeMap<String, [u8; 4]>) -> Option<Vec<u8>> {
    let (name, end) = name_of(question)?;
    let kind = question.get(end..end + 2)?;
    let address = names.get(&name);
    let found = address.filter(|_| kind == TYPE_A);
    let code = if address.is_some() { 0 } else { 3 };
    let mut reply = question.get(..2)?.to_vec();
    // A response, recursion desired and available; one question, no other records than the answer.
    reply.extend([
        0x81,
        0x80 | code,
        0,
        1,
        0,
        u8::from(found.is_some()),
        0,
        0,
        0,
        0,
    ]);
    reply.extend(question.get(HEADER..end + 4)?);
    if let Some(address) = found {
        // The name is the question's, by a pointer to it; one second to live.
        reply.extend([0xc0, 12]);
        reply.extend([TYPE_A, CLASS_IN].concat());
        reply.extend([0, 0, 0, 1, 0, 4]);
        reply.extend(address);
    }
    Some(reply)
}

/// The name asked for, and where it ends.
fn name_of(question: &[u8]) -> Option<(String, usize)> {
    let (mut labels, mut at) = (Vec::new(), HEADER);
    loop {
        let length = usize::from(*question.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        let label = question.get(at..at + length)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += length;
    }
}
