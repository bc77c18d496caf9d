//! How files are named and reached: the same client speaks to us and to every peer.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::rc::Rc;

use bytes::Bytes;
use dfs_client::http::{RequestBody, empty};
use http::Method;

use super::body::{FORM_TYPE, broken};
use super::client::Connection;
use super::mount::Mount;

/// Where one body went: the address and the path that read it.
type Place = (String, String);

/// A store's front.
#[derive(Debug, Clone)]
pub(super) enum Door {
    /// Keys are paths below a prefix.
    Paths {
        /// `host:port`.
        address: String,
        /// Before each key; ends in `/`.
        prefix: &'static str,
        /// Behind the path of each PUT.
        query: &'static str,
        /// Behind the new path of a file that is moved, before its old one.
        moved_from: &'static str,
        /// What answers to PUTs say of replicas; only those of dfs do.
        named: Option<Rc<Named>>,
    },
    /// SeaweedFS's volume servers: the master says where a body goes and what it is called.
    Assigned {
        /// `host:port` of the master.
        master: String,
        /// By key.
        places: Rc<RefCell<HashMap<String, Place>>>,
    },
    /// A mounted file system.
    Mounted(Mount),
}

/// Answers to PUTs, and those that name fewer replicas than are wanted: such a write is not what its row says.
#[derive(Debug, Default)]
pub(super) struct Named {
    answers: Cell<u64>,
    fewer: Cell<u64>,
}

impl Named {
    fn note(&self, answer: &[u8]) -> io::Result<()> {
        /// What matters of an answer.
        #[derive(serde::Deserialize)]
        struct Answer {
            replica_count: u32,
            wanted: u32,
            chunks: u64,
        }
        let answer: Answer = serde_json::from_slice(answer).map_err(broken)?;
        self.answers.set(self.answers.get() + 1);
        if answer.chunks > 0 && answer.replica_count < answer.wanted {
            self.fewer.set(self.fewer.get() + 1);
        }
        Ok(())
    }
}

impl Door {
    /// Answers to PUTs so far, and those of them that named fewer replicas than are wanted.
    pub(super) fn named(&self) -> Option<(u64, u64)> {
        let Self::Paths { named, .. } = self else {
            return None;
        };
        named
            .as_ref()
            .map(|named| (named.answers.get(), named.fewer.get()))
    }

    /// The doors of dfs.
    pub(super) fn files(address: &str) -> Self {
        Self::Paths {
            address: address.to_owned(),
            prefix: "/files/",
            query: "",
            moved_from: "?move-from=",
            named: Some(Rc::default()),
        }
    }

    /// So many clients with a connection each.
    pub(super) async fn sessions(&self, count: usize) -> io::Result<Vec<Session>> {
        let mut sessions = Vec::with_capacity(count);
        for _ in 0..count {
            sessions.push(self.session().await?);
        }
        Ok(sessions)
    }

    /// One client.
    pub(super) async fn session(&self) -> io::Result<Session> {
        let mut session = Session {
            door: self.clone(),
            open: HashMap::new(),
        };
        let first = match self {
            Self::Paths { address, .. } => address,
            Self::Assigned { master, .. } => master,
            Self::Mounted(_) => return Ok(session),
        };
        session.connection(first).await?;
        if let Self::Assigned { places, .. } = self {
            // Of those that are known: connecting is no part of what is measured.
            let known: BTreeSet<String> =
                places.borrow().values().map(|(at, _)| at.clone()).collect();
            for address in known {
                session.connection(&address).await?;
            }
        }
        Ok(session)
    }
}

/// One client: a kept connection to each address that it meets.
pub(super) struct Session {
    door: Door,
    open: HashMap<String, Connection>,
}

impl Session {
    async fn connection(&mut self, address: &str) -> io::Result<&mut Connection> {
        if !self.open.contains_key(address) {
            let connection = Connection::open(address).await?;
            self.open.insert(address.to_owned(), connection);
        }
        let open = self.open.get_mut(address);
        open.ok_or_else(|| io::Error::other("a connection is gone"))
    }

    /// Where a key is, or goes.
    fn place(&self, key: &str) -> io::Result<Place> {
        match &self.door {
            Door::Paths {
                address, prefix, ..
            } => Ok((address.clone(), format!("{prefix}{key}"))),
            Door::Assigned { places, .. } => {
                let place = places.borrow().get(key).cloned();
                place.ok_or_else(|| io::Error::other(format!("`{key}` was never written")))
            }
            Door::Mounted(_) => Err(io::Error::other("a mount has no address")),
        }
    }

    /// PUTs a body until it is taken; how often it was refused for now.
    pub(super) async fn put(
        &mut self,
        key: &str,
        body: impl Fn() -> RequestBody,
    ) -> io::Result<u64> {
        let mut named = None;
        let (address, path) = match self.door.clone() {
            Door::Paths {
                address,
                prefix,
                query,
                named: noted,
                ..
            } => {
                named = noted;
                (address, format!("{prefix}{key}{query}"))
            }
            Door::Mounted(mount) => return mount.put(key, body()).await.map(|()| 0),
            Door::Assigned { master, places } => {
                let answer = self.connection(&master).await?.tell("/dir/assign").await?;
                let (address, fid) = assigned(&answer)?;
                let path = format!("/{fid}");
                let place = (address.clone(), path.clone());
                places.borrow_mut().insert(key.to_owned(), place);
                (address, format!("{path}?fsync=true"))
            }
        };
        let (answer, refusals) = self.connection(&address).await?.put(&path, body).await?;
        if let Some(named) = named {
            named.note(&answer)?;
        }
        Ok(refusals)
    }

    /// POSTs a form to dfs.
    pub(super) async fn upload(&mut self, form: RequestBody) -> io::Result<()> {
        let (address, _) = self.place("")?;
        let headers = [("content-type", FORM_TYPE)];
        let connection = self.connection(&address).await?;
        let done = connection.exchange(Method::POST, "/upload", &headers, form);
        done.await.map(drop)
    }

    /// GETs and counts the bytes.
    pub(super) async fn get(&mut self, key: &str) -> io::Result<u64> {
        if let Door::Mounted(mount) = &self.door {
            return mount.get(key).await;
        }
        let (address, path) = self.place(key)?;
        self.connection(&address).await?.get(&path).await
    }

    /// GETs a range and counts the bytes.
    pub(super) async fn get_range(&mut self, key: &str, from: u64, length: u64) -> io::Result<u64> {
        if let Door::Mounted(mount) = &self.door {
            return mount.get_range(key, from, length).await;
        }
        let (address, path) = self.place(key)?;
        let range = format!("bytes={from}-{}", from + length - 1);
        let connection = self.connection(&address).await?;
        connection
            .exchange(Method::GET, &path, &[("range", &range)], empty())
            .await
    }

    /// Asks for headers alone.
    pub(super) async fn head(&mut self, key: &str) -> io::Result<()> {
        if let Door::Mounted(mount) = &self.door {
            return mount.head(key).await;
        }
        let (address, path) = self.place(key)?;
        let connection = self.connection(&address).await?;
        let done = connection.exchange(Method::HEAD, &path, &[], empty()).await;
        done.map(drop)
    }

    /// Deletes.
    pub(super) async fn delete(&mut self, key: &str) -> io::Result<()> {
        if let Door::Mounted(mount) = &self.door {
            return mount.delete(key).await;
        }
        let (address, path) = self.place(key)?;
        self.connection(&address).await?.delete(&path).await
    }

    /// Makes an empty file; how often it was refused for now.
    pub(super) async fn create(&mut self, key: &str) -> io::Result<u64> {
        match &self.door {
            Door::Mounted(mount) => mount.create(key).await.map(|()| 0),
            Door::Paths { .. } | Door::Assigned { .. } => self.put(key, empty).await,
        }
    }

    /// Gives a file another name.
    pub(super) async fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let asked = match &self.door {
            Door::Mounted(mount) => return mount.rename(from, to).await,
            Door::Paths { moved_from, .. } => *moved_from,
            Door::Assigned { .. } => return Err(io::Error::other("there are no names")),
        };
        let (address, path) = self.place(to)?;
        let path = format!("{path}{asked}{from}");
        let connection = self.connection(&address).await?;
        let done = connection.exchange(Method::POST, &path, &[], empty()).await;
        done.map(drop)
    }

    /// One page of a directory of dfs, read whole.
    pub(super) async fn list(
        &mut self,
        dir: &str,
        limit: usize,
        cursor: &str,
    ) -> io::Result<Bytes> {
        let (address, path) = self.place(dir)?;
        let mut path = format!("{path}/?list&limit={limit}");
        if !cursor.is_empty() {
            path.push_str("&cursor=");
            path.push_str(cursor);
        }
        self.connection(&address).await?.tell(&path).await
    }
}

/// Address and file id of an assignment.
fn assigned(answer: &Bytes) -> io::Result<Place> {
    let answer: serde_json::Value = serde_json::from_slice(answer).map_err(broken)?;
    let text = |key: &str| answer.get(key).and_then(serde_json::Value::as_str);
    match (text("url"), text("fid")) {
        (Some(url), Some(fid)) => Ok((url.to_owned(), fid.to_owned())),
        _ => Err(io::Error::other(format!("no assignment: {answer}"))),
    }
}
