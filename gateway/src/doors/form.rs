//! `multipart/form-data` (RFC 7578, RFC 2046) as a stream: parts one after the other, never a whole
//! one in memory, bounded in number, in header bytes and in the bytes that are no file.

use axum::body::Body;
use bytes::{Buf as _, Bytes, BytesMut};
use dfs_protocol::{ErrorCode, Problem};
use dfs_runtime::problem::body_problem;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt as _;

/// Parts in one form.
const MAX_PARTS: usize = 64;
/// Bytes of one part's header.
const MAX_HEADER_BYTES: usize = 8 * 1024;
/// Bytes before the first boundary.
const MAX_PREAMBLE: usize = 8 * 1024;
/// Longest boundary (RFC 2046 section 5.1.1).
const MAX_BOUNDARY: usize = 70;

/// A form that is read part by part.
#[derive(Debug)]
pub(super) struct Form {
    body: Body,
    buffer: BytesMut,
    /// CR LF `--` boundary.
    delimiter: Vec<u8>,
    parts: usize,
    ended: bool,
}

/// What a part's header says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PartHeader {
    /// Name of the field.
    pub(super) name: String,
    /// Name of the file: the raw bytes between the quotes.
    pub(super) filename: Option<Vec<u8>>,
    /// Media type of the part.
    pub(super) content_type: Option<String>,
}

/// Why a form was refused: limits are counted.
#[derive(Debug)]
pub(super) enum FormError {
    /// 400.
    Malformed(&'static str),
    /// 413.
    OverLimit(String),
    /// The body itself.
    Body(Problem),
}

impl From<FormError> for Problem {
    fn from(error: FormError) -> Self {
        match error {
            FormError::Malformed(detail) => Self::new(ErrorCode::InvalidForm, detail)
                .next("send one file, as `curl -F \"file=@NAME\"` does; nothing was stored"),
            FormError::OverLimit(detail) => Self::new(ErrorCode::TooLarge, detail)
                .next("send one file in a form; nothing was stored"),
            FormError::Body(problem) => problem,
        }
    }
}

impl Form {
    /// Begins; the boundary comes from the content type.
    pub(super) fn new(headers: &HeaderMap, body: Body) -> Result<Self, FormError> {
        let boundary = boundary(headers)?;
        let mut delimiter = b"\r\n--".to_vec();
        delimiter.extend_from_slice(boundary.as_bytes());
        Ok(Self {
            body,
            // The first boundary has no line before it: one is put there.
            buffer: BytesMut::from(&b"\r\n"[..]),
            delimiter,
            parts: 0,
            ended: false,
        })
    }

    /// The next part's header; `None` after the final boundary. What is left of the part before is
    /// skipped, up to `MAX_HEADER_BYTES`.
    pub(super) async fn next_part(&mut self) -> Result<Option<PartHeader>, FormError> {
        self.skip_to_boundary().await?;
        // `--` ends the form; white space may pad a boundary's line.
        loop {
            if self.buffer.starts_with(b"--") {
                self.ended = true;
                return self.drain().await.map(|()| None);
            }
            match self.buffer.first() {
                Some(b' ' | b'\t') => self.buffer.advance(1),
                Some(b'\r') if self.buffer.len() > 1 => break,
                Some(b'-') if self.buffer.len() < 2 => self.fill().await?,
                Some(b'\r') | None => self.fill().await?,
                Some(_) => return Err(FormError::Malformed("a boundary's line goes on")),
            }
        }
        if !self.buffer.starts_with(b"\r\n") {
            return Err(FormError::Malformed("a boundary's line goes on"));
        }
        self.parts += 1;
        if self.parts > MAX_PARTS {
            return Err(FormError::OverLimit(format!(
                "the form has more than {MAX_PARTS} parts"
            )));
        }
        let header = self.header().await?;
        parse_header(&header).map(Some)
    }

    /// The next bytes of the current part; `None` at its end.
    pub(super) async fn data(&mut self) -> Result<Option<Bytes>, FormError> {
        loop {
            match find(&self.buffer, &self.delimiter) {
                Some(0) => return Ok(None),
                Some(at) => return Ok(Some(self.buffer.split_to(at).freeze())),
                None => {
                    // The delimiter may begin in what is there.
                    let sure = self.buffer.len().saturating_sub(self.delimiter.len() - 1);
                    if sure > 0 {
                        return Ok(Some(self.buffer.split_to(sure).freeze()));
                    }
                    self.fill().await?;
                }
            }
        }
    }

    /// The whole of a small part.
    pub(super) async fn small(&mut self, limit: usize) -> Result<Vec<u8>, FormError> {
        let mut bytes = Vec::new();
        while let Some(data) = self.data().await? {
            if bytes.len() + data.len() > limit {
                return Err(FormError::OverLimit(format!(
                    "a field that is no file has more than {limit} bytes"
                )));
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes)
    }

    async fn skip_to_boundary(&mut self) -> Result<(), FormError> {
        self.small(MAX_PREAMBLE).await?;
        self.buffer.advance(self.delimiter.len());
        Ok(())
    }

    /// A part's header lines, without the empty one.
    async fn header(&mut self) -> Result<Bytes, FormError> {
        // The buffer begins with the CR LF of the boundary's line.
        loop {
            let end = find(&self.buffer, b"\r\n\r\n");
            if end.unwrap_or(self.buffer.len()) > MAX_HEADER_BYTES {
                return Err(FormError::OverLimit(format!(
                    "a part's header has more than {MAX_HEADER_BYTES} bytes"
                )));
            }
            if let Some(at) = end {
                return Ok(self.buffer.split_to(at + 4).freeze().slice(..at));
            }
            self.fill().await?;
        }
    }

    /// Reads what may follow the final boundary, so that the connection can be used again.
    async fn drain(&mut self) -> Result<(), FormError> {
        let mut left = self.buffer.len();
        self.buffer.clear();
        loop {
            if left > MAX_PREAMBLE {
                return Err(FormError::Malformed("bytes follow the final boundary"));
            }
            match self.frame().await? {
                Some(data) => left += data.len(),
                None => return Ok(()),
            }
        }
    }

    async fn fill(&mut self) -> Result<(), FormError> {
        match self.frame().await? {
            Some(data) => {
                self.buffer.extend_from_slice(&data);
                Ok(())
            }
            None => Err(FormError::Malformed(
                "the form ends without its final boundary",
            )),
        }
    }

    async fn frame(&mut self) -> Result<Option<Bytes>, FormError> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| FormError::Body(body_problem(&error)))?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

/// Where `needle` (which begins with CR) starts.
fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = hay[from..].iter().position(|byte| *byte == b'\r') {
        let at = from + at;
        if hay[at..].starts_with(needle) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

fn boundary(headers: &HeaderMap) -> Result<String, FormError> {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let value = value.unwrap_or("");
    let (media, parameters) = value.split_once(';').unwrap_or((value, ""));
    if !media.trim().eq_ignore_ascii_case("multipart/form-data") {
        return Err(FormError::Malformed(
            "the content type is not multipart/form-data",
        ));
    }
    let boundary = parameter(parameters.as_bytes(), "boundary").unwrap_or_default();
    let boundary = String::from_utf8(boundary).unwrap_or_default();
    let is_legal = |b: u8| b.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&b);
    if boundary.is_empty() || boundary.len() > MAX_BOUNDARY || !boundary.bytes().all(is_legal) {
        return Err(FormError::Malformed("the content type names no boundary"));
    }
    Ok(boundary)
}

fn parse_header(lines: &[u8]) -> Result<PartHeader, FormError> {
    let mut header = PartHeader::default();
    let mut disposed = false;
    for line in lines.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii();
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            if line.is_empty() {
                continue;
            }
            return Err(FormError::Malformed(
                "a part's header has a line without `:`",
            ));
        };
        let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-type") {
            header.content_type = String::from_utf8(value.to_vec()).ok();
        } else if name.eq_ignore_ascii_case(b"content-disposition") {
            disposed = true;
            let field = parameter(value, "name").unwrap_or_default();
            header.name = String::from_utf8(field).unwrap_or_default();
            header.filename = parameter(value, "filename");
        }
    }
    if disposed {
        Ok(header)
    } else {
        Err(FormError::Malformed("a part has no Content-Disposition"))
    }
}

/// A parameter of a header's value. Quoted values: `\"` and `\\` are undone, and `%22`, `%0D`, `%0A`
/// as browsers write quotes and line ends (the WHATWG form encoding); nothing else is.
fn parameter(value: &[u8], wanted: &str) -> Option<Vec<u8>> {
    let mut rest = value;
    loop {
        rest = rest.trim_ascii_start();
        rest = rest.strip_prefix(b";").unwrap_or(rest).trim_ascii_start();
        if rest.is_empty() {
            return None;
        }
        let end = rest
            .iter()
            .position(|b| b"=;".contains(b))
            .unwrap_or(rest.len());
        let name = rest[..end].trim_ascii();
        rest = &rest[end..];
        let mut text = Vec::new();
        if let Some(after) = rest.strip_prefix(b"=") {
            (text, rest) = parameter_value(after.trim_ascii_start());
        }
        if name.eq_ignore_ascii_case(wanted.as_bytes()) {
            return Some(text);
        }
    }
}

fn parameter_value(text: &[u8]) -> (Vec<u8>, &[u8]) {
    let Some(mut rest) = text.strip_prefix(b"\"") else {
        let end = text.iter().position(|b| *b == b';').unwrap_or(text.len());
        return (text[..end].trim_ascii_end().to_vec(), &text[end..]);
    };
    let mut value = Vec::new();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after.first()) {
            (b'"', _) => break,
            (b'\\', Some(&next @ (b'"' | b'\\'))) => {
                value.push(next);
                rest = &after[1..];
            }
            (b'%', _) => {
                let escapes: [(&[u8], u8); 3] = [(b"22", b'"'), (b"0D", b'\r'), (b"0A", b'\n')];
                let escape = escapes.iter().find(|(digits, _)| after.starts_with(digits));
                value.push(escape.map_or(b'%', |(_, byte)| *byte));
                rest = if escape.is_some() { &after[2..] } else { after };
            }
            (byte, _) => value.push(byte),
        }
    }
    (value, rest)
}
