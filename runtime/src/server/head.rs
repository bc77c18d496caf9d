//! Judges a request's header before hyper sees it. hyper quietly repairs some requests on which a
//! proxy in front may disagree about where the body ends (a repeated `Content-Length`, one beside
//! `Transfer-Encoding`); here they are refused, so that nothing can be smuggled between the two.

use dfs_protocol::problem::ErrorCode;

use super::limits::ServerLimits;

/// Room for method and version in the request line, beside the URI.
const LINE_ROOM: usize = 64;
/// Lengths above this are refused here: later arithmetic on them cannot overflow.
const LENGTH_LIMIT: u64 = i64::MAX as u64;

/// What follows a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// The next header.
    Nothing,
    /// That many bytes.
    Length(u64),
    /// Chunks and trailers.
    Chunked,
}

/// A header that may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Bytes, with the empty line.
    pub(super) length: usize,
    pub(super) framing: Framing,
    /// After the body the connection may speak another protocol.
    pub(super) upgrade: bool,
}

/// Why a request is not taken: code and detail of the problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal(pub(super) ErrorCode, pub(super) &'static str);

fn bad(detail: &'static str) -> Refusal {
    Refusal(ErrorCode::BadRequest, detail)
}

/// Looks for a whole header at the start of `bytes`; `seen` of them were looked at before without
/// success. `Ok(None)` means that more bytes are needed.
pub(super) fn scan(
    bytes: &[u8],
    seen: usize,
    limits: &ServerLimits,
) -> Result<Option<Head>, Refusal> {
    let Some(length) = end_of_head(bytes, seen) else {
        let line = limits.uri_bytes + LINE_ROOM;
        if bytes.len() > line && !bytes[..line].contains(&b'\n') {
            return Err(Refusal(
                ErrorCode::UriTooLong,
                "the request line is too long",
            ));
        }
        if bytes.len() > limits.header_bytes {
            return Err(Refusal(
                ErrorCode::HeadersTooLarge,
                "the header is too large",
            ));
        }
        return Ok(None);
    };
    if length > limits.header_bytes {
        return Err(Refusal(
            ErrorCode::HeadersTooLarge,
            "the header is too large",
        ));
    }
    judge(&bytes[..length], limits).map(Some)
}

/// Just behind the first empty line, whichever way lines end; [`judge`] is strict about that.
fn end_of_head(bytes: &[u8], seen: usize) -> Option<usize> {
    let from = seen.saturating_sub(3);
    (from..bytes.len())
        .filter(|at| bytes[*at] == b'\n')
        .find_map(|at| match bytes.get(at + 1..)? {
            [b'\n', ..] => Some(at + 2),
            [b'\r', b'\n', ..] => Some(at + 3),
            _ => None,
        })
}

fn judge(head: &[u8], limits: &ServerLimits) -> Result<Head, Refusal> {
    let text = head
        .strip_suffix(b"\r\n\r\n")
        .ok_or(bad("lines must end in CR LF"))?;
    let mut lines = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        lines.push(line);
    }
    let last = lines.len() - 1;
    for (index, line) in lines.iter_mut().enumerate() {
        if index < last {
            *line = line
                .strip_suffix(b"\r")
                .ok_or(bad("lines must end in CR LF"))?;
        }
        if line.iter().any(|byte| matches!(byte, b'\r' | b'\0')) {
            return Err(bad("a line holds a stray CR or NUL"));
        }
    }
    let (request_line, fields) = lines.split_first().ok_or(bad("no request line"))?;
    let line = RequestLine::parse(request_line, limits)?;
    if fields.len() > limits.headers {
        return Err(Refusal(ErrorCode::HeadersTooLarge, "too many header lines"));
    }
    let fields = Fields::parse(fields)?;
    Ok(Head {
        length: head.len(),
        framing: fields.framing(line.http_11)?,
        upgrade: line.connect || (fields.upgrade && line.http_11),
    })
}

struct RequestLine {
    connect: bool,
    http_11: bool,
}

impl RequestLine {
    fn parse(line: &[u8], limits: &ServerLimits) -> Result<Self, Refusal> {
        let mut words = line.split(|byte| *byte == b' ');
        let (Some(method), Some(uri), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(bad("the request line needs a method, a URI and a version"));
        };
        if uri.len() > limits.uri_bytes {
            return Err(Refusal(ErrorCode::UriTooLong, "the URI is too long"));
        }
        if method.is_empty() || uri.is_empty() {
            return Err(bad("the request line needs a method, a URI and a version"));
        }
        let http_11 = match version {
            b"HTTP/1.1" => true,
            b"HTTP/1.0" => false,
            _ => return Err(bad("the version must be HTTP/1.1 or HTTP/1.0")),
        };
        Ok(Self {
            connect: method == b"CONNECT",
            http_11,
        })
    }
}

/// The fields that decide where a request ends.
#[derive(Default)]
struct Fields<'a> {
    length: Option<&'a [u8]>,
    encoding: Option<&'a [u8]>,
    host: Option<&'a [u8]>,
    upgrade: bool,
}

impl<'a> Fields<'a> {
    fn parse(lines: &[&'a [u8]]) -> Result<Self, Refusal> {
        let mut fields = Self::default();
        for line in lines {
            let colon = line.iter().position(|byte| *byte == b':');
            let (name, value) = line.split_at(colon.ok_or(bad("a header line has no colon"))?);
            if name.is_empty() || name.iter().any(u8::is_ascii_whitespace) {
                return Err(bad("a header name is empty, folded or holds spaces"));
            }
            let value = value[1..].trim_ascii();
            let slot = match name.to_ascii_lowercase().as_slice() {
                b"content-length" => &mut fields.length,
                b"transfer-encoding" => &mut fields.encoding,
                b"host" => &mut fields.host,
                b"upgrade" => {
                    fields.upgrade = true;
                    continue;
                }
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return Err(bad(
                    "Content-Length, Transfer-Encoding and Host may be there once",
                ));
            }
        }
        Ok(fields)
    }

    fn framing(&self, http_11: bool) -> Result<Framing, Refusal> {
        match (self.length, self.encoding) {
            (None, None) => Ok(Framing::Nothing),
            (Some(_), Some(_)) => Err(bad("Content-Length beside Transfer-Encoding")),
            (None, Some(encoding)) if http_11 && encoding.eq_ignore_ascii_case(b"chunked") => {
                Ok(Framing::Chunked)
            }
            (None, Some(_)) => Err(bad("the only Transfer-Encoding is chunked, in HTTP/1.1")),
            (Some(length), None) => match parse_length(length)? {
                0 => Ok(Framing::Nothing),
                length => Ok(Framing::Length(length)),
            },
        }
    }
}

/// Digits only: no sign, no list.
fn parse_length(value: &[u8]) -> Result<u64, Refusal> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| digits);
    let length = text.and_then(|text| text.parse().ok());
    match length {
        Some(length) if length <= LENGTH_LIMIT => Ok(length),
        Some(_) => Err(Refusal(ErrorCode::TooLarge, "no body can be that long")),
        None => Err(bad("Content-Length must be a decimal number")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan_all(text: &[u8]) -> Result<Option<Head>, Refusal> {
        scan(text, 0, &ServerLimits::default())
    }

    fn code(text: &str) -> Option<ErrorCode> {
        scan_all(text.as_bytes()).err().map(|refusal| refusal.0)
    }

    #[test]
    fn bad_input_17_lengths_that_two_readers_could_read_differently_are_refused() {
        for fields in [
            "Content-Length: 5\r\nContent-Length: 5",
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length: -1",
            "Content-Length: +5",
            "Content-Length: 0x5",
            "Content-Length: 5, 5",
            "Content-Length:",
            "Content-Length: 18446744073709551616",
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding : chunked",
            " Content-Length: 5",
            "Content-Length 5",
        ] {
            let text = format!("PUT /files/a HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n");
            assert_eq!(code(&text), Some(ErrorCode::BadRequest), "{fields}");
        }
        let old = "PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(code(old), Some(ErrorCode::BadRequest));
        let huge = "PUT / HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\n";
        assert_eq!(code(huge), Some(ErrorCode::TooLarge));
    }

    #[test]
    fn lines_end_in_cr_lf_and_nothing_else() {
        for text in [
            "GET / HTTP/1.1\nHost: x\n\n",
            "GET / HTTP/1.1\r\nHost: x\n\r\n",
            "GET / HTTP/1.1\r\nA: b\rContent-Length: 5\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\0\r\n\r\n",
            "GET  / HTTP/1.1\r\n\r\n",
            "GET / HTTP/2.0\r\n\r\n",
            "GET /\r\n\r\n",
        ] {
            assert_eq!(code(text), Some(ErrorCode::BadRequest), "{text:?}");
        }
    }

    #[test]
    fn what_follows_a_good_header_is_known() {
        let head = |fields: &str| {
            let text = format!("PUT /x HTTP/1.1\r\n{fields}\r\nrest");
            let head = scan_all(text.as_bytes()).unwrap().unwrap();
            assert_eq!(head.length, text.len() - 4);
            (head.framing, head.upgrade)
        };
        assert_eq!(head(""), (Framing::Nothing, false));
        assert_eq!(head("content-LENGTH:  7 \r\n"), (Framing::Length(7), false));
        assert_eq!(head("Content-Length: 0\r\n"), (Framing::Nothing, false));
        assert_eq!(
            head("Transfer-Encoding: Chunked\r\n"),
            (Framing::Chunked, false)
        );
        assert_eq!(head("Upgrade: x\r\n"), (Framing::Nothing, true));
    }

    #[test]
    fn bad_input_26_limits_hold_before_the_header_is_whole() {
        let limits = ServerLimits::default();
        let line = vec![b'a'; limits.uri_bytes + LINE_ROOM + 1];
        assert_eq!(scan_all(&line).unwrap_err().0, ErrorCode::UriTooLong);
        let mut open = b"GET / HTTP/1.1\r\nA: ".to_vec();
        open.resize(limits.header_bytes, b'a');
        assert_eq!(scan_all(&open), Ok(None));
        open.extend_from_slice(b"aa");
        assert_eq!(scan_all(&open).unwrap_err().0, ErrorCode::HeadersTooLarge);
    }

    proptest! {
        #[test]
        fn i32_no_bytes_panic_the_scan_and_pieces_end_where_the_whole_does(
            bytes in proptest::collection::vec(
                prop_oneof![Just(b'\r'), Just(b'\n'), Just(b' '), Just(b':'), any::<u8>()], 0..200),
            cut in 0_usize..200,
        ) {
            let cut = cut.min(bytes.len());
            let limits = ServerLimits { uri_bytes: 20, headers: 3, header_bytes: 90, ..ServerLimits::default() };
            if scan(&bytes[..cut], 0, &limits) == Ok(None) {
                prop_assert_eq!(scan(&bytes, cut, &limits), scan(&bytes, 0, &limits));
            }
        }
    }
}
