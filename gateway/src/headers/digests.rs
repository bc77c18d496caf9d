//! Digests that a client sends with a body (`Content-MD5`, RFC 9530, `x-amz-checksum-*`), verified
//! before the commit. MD5 and SHA-256 are computed only when a header asks for them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dfs_protocol::{ErrorCode, Problem};
use http::HeaderMap;
use md5::{Digest as _, Md5};
use sha2::Sha256;

/// Headers of RFC 9530: the same thing for a body that is the whole representation.
const RFC_9530: [&str; 2] = ["content-digest", "repr-digest"];
const AMZ_PREFIX: &str = "x-amz-checksum-";

/// What the headers announced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct WantedDigests {
    md5: Option<[u8; 16]>,
    sha256: Option<[u8; 32]>,
    crc32c: Option<u32>,
    crc64nvme: Option<u64>,
}

/// Digests of the bytes so far.
#[derive(Debug)]
pub(crate) struct Digests {
    wanted: WantedDigests,
    md5: Option<Md5>,
    sha256: Option<Sha256>,
    md5_done: Option<[u8; 16]>,
}

impl WantedDigests {
    /// Reads every digest header; `invalid-digest` for one that is malformed, not known to us, or
    /// contradicts another.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut wanted = Self::default();
        for (name, value) in headers {
            let name = name.as_str();
            let text = || value.to_str().map_err(|_| malformed(name));
            if name == "content-md5" {
                set(&mut wanted.md5, decode(name, text()?.trim())?, name)?;
            } else if RFC_9530.contains(&name) {
                wanted.read_dictionary(name, text()?)?;
            } else if let Some(algorithm) = name.strip_prefix(AMZ_PREFIX) {
                wanted.read_amz(name, algorithm, text()?.trim())?;
            }
        }
        Ok(wanted)
    }

    fn read_amz(&mut self, name: &str, algorithm: &str, value: &str) -> Result<(), Problem> {
        match algorithm {
            "crc32c" => set(
                &mut self.crc32c,
                u32::from_be_bytes(decode(name, value)?),
                name,
            ),
            "crc64nvme" => set(
                &mut self.crc64nvme,
                u64::from_be_bytes(decode(name, value)?),
                name,
            ),
            "sha256" => set(&mut self.sha256, decode(name, value)?, name),
            // The name of the algorithm, or how parts combine: says nothing about the bytes.
            "algorithm" | "type" | "mode" => Ok(()),
            _ => Err(Problem::new(
                ErrorCode::InvalidDigest,
                format!("the checksum `{name}` is not supported"),
            )
            .next("send x-amz-checksum-crc64nvme, -crc32c or -sha256")),
        }
    }

    /// A dictionary of byte sequences (RFC 8941): `sha-256=:BASE64:, md5=:BASE64:`. Algorithms that
    /// we do not compute are ignored, as RFC 9530 says.
    fn read_dictionary(&mut self, name: &str, text: &str) -> Result<(), Problem> {
        for member in text.split(',') {
            let (algorithm, value) = member
                .trim()
                .split_once('=')
                .ok_or_else(|| malformed(name))?;
            let value = value.split(';').next().unwrap_or("").trim();
            let value = value
                .strip_prefix(':')
                .and_then(|value| value.strip_suffix(':'))
                .ok_or_else(|| malformed(name))?;
            match algorithm {
                "sha-256" => set(&mut self.sha256, decode(name, value)?, name)?,
                "md5" => set(&mut self.md5, decode(name, value)?, name)?,
                "crc32c" => {
                    set(
                        &mut self.crc32c,
                        u32::from_be_bytes(decode(name, value)?),
                        name,
                    )?;
                }
                _ => drop(STANDARD.decode(value).map_err(|_| malformed(name))?),
            }
        }
        Ok(())
    }
}

impl Digests {
    pub(crate) fn new(wanted: &WantedDigests) -> Self {
        Self {
            md5: wanted.md5.map(|_| Md5::new()),
            sha256: wanted.sha256.map(|_| Sha256::new()),
            md5_done: None,
            wanted: wanted.clone(),
        }
    }

    /// Adds bytes.
    pub(crate) fn update(&mut self, data: &[u8]) {
        if let Some(md5) = &mut self.md5 {
            md5.update(data);
        }
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(data);
        }
    }

    /// MD5 of all bytes, if it was asked for; known after [`Self::verify`].
    pub(crate) fn md5(&self) -> Option<[u8; 16]> {
        self.md5_done
    }

    /// Compares everything announced with what came; the CRCs are computed elsewhere anyway.
    pub(crate) fn verify(&mut self, crc32c: u32, crc64nvme: u64) -> Result<(), Problem> {
        self.md5_done = self.md5.take().map(|md5| md5.finalize().into());
        let sha256: Option<[u8; 32]> = self.sha256.take().map(|sha| sha.finalize().into());
        let differs = if self.wanted.md5 != self.md5_done {
            Some("MD5")
        } else if self.wanted.sha256 != sha256 {
            Some("SHA-256")
        } else if self.wanted.crc32c.is_some_and(|wanted| wanted != crc32c) {
            Some("CRC32C")
        } else if self
            .wanted
            .crc64nvme
            .is_some_and(|wanted| wanted != crc64nvme)
        {
            Some("CRC64-NVME")
        } else {
            None
        };
        match differs {
            None => Ok(()),
            Some(name) => Err(Problem::new(
                ErrorCode::BadDigest,
                format!("the {name} of the bytes that arrived is not the one that was announced"),
            )
            .next("nothing was stored: check the digest and send the body again")),
        }
    }
}

/// CRC64-NVME as headers and answers carry it: base64 of eight big-endian bytes.
pub(crate) fn crc64_text(crc: u64) -> String {
    STANDARD.encode(crc.to_be_bytes())
}

/// `Repr-Digest` for a known MD5.
pub(crate) fn md5_dictionary(md5: [u8; 16]) -> String {
    format!("md5=:{}:", STANDARD.encode(md5))
}

fn decode<const N: usize>(name: &str, text: &str) -> Result<[u8; N], Problem> {
    let bytes = STANDARD.decode(text).map_err(|_| malformed(name))?;
    bytes.try_into().map_err(|_| malformed(name))
}

fn set<T: PartialEq>(slot: &mut Option<T>, value: T, name: &str) -> Result<(), Problem> {
    match slot {
        Some(known) if *known != value => Err(Problem::new(
            ErrorCode::InvalidDigest,
            format!("the header `{name}` contradicts another digest"),
        )),
        _ => {
            *slot = Some(value);
            Ok(())
        }
    }
}

fn malformed(name: &str) -> Problem {
    Problem::new(
        ErrorCode::InvalidDigest,
        format!("the header `{name}` is not a digest of its algorithm in base64"),
    )
    .next("encode the raw digest (not its hex form) in base64")
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_protocol::checksum::{crc32c, crc64nvme};

    const BODY: &[u8] = b"hello world";

    fn check(name: &'static str, value: &str) -> Result<(), String> {
        let headers = [(name.parse().unwrap(), value.parse().unwrap())];
        let code = |problem: Problem| problem.code().unwrap().as_str().to_owned();
        let wanted = WantedDigests::read(&headers.into_iter().collect()).map_err(code)?;
        let mut digests = Digests::new(&wanted);
        digests.update(&BODY[..3]);
        digests.update(&BODY[3..]);
        digests.verify(crc32c(BODY), crc64nvme(BODY)).map_err(code)
    }

    fn right() -> Vec<(&'static str, String)> {
        let b64 = |bytes: &[u8]| STANDARD.encode(bytes);
        let (md5, sha) = (b64(&Md5::digest(BODY)), b64(&Sha256::digest(BODY)));
        let crc = b64(&crc32c(BODY).to_be_bytes());
        vec![
            ("content-md5", md5.clone()),
            ("content-digest", format!("sha-256=:{sha}:")),
            (
                "repr-digest",
                format!("md5=:{md5}:, sha-256=:{sha}:, other=:AA==:"),
            ),
            ("content-digest", format!("crc32c=:{crc}:")),
            ("x-amz-checksum-crc32c", crc),
            ("x-amz-checksum-crc64nvme", crc64_text(crc64nvme(BODY))),
            ("x-amz-checksum-sha256", sha),
        ]
    }

    #[test]
    fn i06_every_right_digest_is_accepted() {
        for (name, value) in right() {
            assert_eq!(check(name, &value), Ok(()), "{name}: {value}");
        }
    }

    #[test]
    fn bad_input_27_every_wrong_digest_is_a_bad_digest() {
        for (name, value) in right() {
            // Another digest of the same length: its first base64 digit differs.
            let at = value.find("=:").map_or(0, |at| at + 2);
            let mut wrong = value.clone().into_bytes();
            wrong[at] = if wrong[at] == b'A' { b'B' } else { b'A' };
            let wrong = String::from_utf8(wrong).unwrap();
            assert_eq!(
                check(name, &wrong),
                Err("bad-digest".into()),
                "{name}: {wrong}"
            );
        }
    }

    #[test]
    fn bad_input_27_every_malformed_digest_is_an_invalid_digest() {
        for (name, value) in [
            ("content-md5", "?"),
            ("content-md5", "AAAA"),
            ("content-md5", "5eb63bbbe01eeed093cb22bb8f5acdc3"),
            ("content-digest", "sha-256=AAAA"),
            ("content-digest", "sha-256"),
            ("content-digest", ""),
            ("repr-digest", "sha-256=:AAAA:"),
            ("repr-digest", "other=:?:"),
            ("x-amz-checksum-crc32c", "AAAAAAA="),
            ("x-amz-checksum-sha1", "AAAA"),
        ] {
            assert_eq!(
                check(name, value),
                Err("invalid-digest".into()),
                "{name}: {value}"
            );
        }
    }

    #[test]
    fn bad_input_27_digests_that_contradict_each_other_are_refused() {
        let md5 = STANDARD.encode(Md5::digest(BODY));
        let headers: HeaderMap = [
            ("content-md5".parse().unwrap(), md5.parse().unwrap()),
            (
                "repr-digest".parse().unwrap(),
                format!("md5=:{}:", STANDARD.encode([0; 16]))
                    .parse()
                    .unwrap(),
            ),
        ]
        .into_iter()
        .collect();
        assert!(WantedDigests::read(&headers).is_err());
    }
}
