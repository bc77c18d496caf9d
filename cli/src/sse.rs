//! Server-sent events as they come over the wire (HTML, section 9.2.6): pieces of bytes in, events
//! out. Pure; an event has a longest size.

/// Longest line, and longest data of one event.
const MAX_BYTES: usize = 1024 * 1024;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SseEvent {
    /// The last id that was told, with this event or before it.
    pub id: String,
    /// Its type; `message` when none was told.
    pub kind: String,
    /// Its data; lines are joined with a line feed.
    pub data: String,
}

/// An event or a line without end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an event is larger than {MAX_BYTES} bytes")]
pub struct TooLarge;

/// What was read of a stream so far.
#[derive(Debug, Default)]
pub struct SseParser {
    line: Vec<u8>,
    /// The last byte ended a line and was CR: an LF behind it belongs to it.
    after_cr: bool,
    /// Whether the first line, which may begin with a byte order mark, is over.
    begun: bool,
    id: String,
    kind: String,
    data: Option<String>,
}

impl SseParser {
    /// Takes the next piece, gives the events that it completes. What a stream leaves incomplete is
    /// no event.
    pub fn push(&mut self, piece: &[u8]) -> Result<Vec<SseEvent>, TooLarge> {
        let mut events = Vec::new();
        for byte in piece {
            let ends_crlf = std::mem::take(&mut self.after_cr) && *byte == b'\n';
            match byte {
                b'\n' if ends_crlf => {}
                b'\n' | b'\r' => {
                    self.after_cr = *byte == b'\r';
                    let line = std::mem::take(&mut self.line);
                    events.extend(self.line_ended(&line)?);
                }
                _ if self.line.len() == MAX_BYTES => return Err(TooLarge),
                other => self.line.push(*other),
            }
        }
        Ok(events)
    }

    fn line_ended(&mut self, line: &[u8]) -> Result<Option<SseEvent>, TooLarge> {
        let line = String::from_utf8_lossy(line);
        let line = if self.begun {
            &*line
        } else {
            line.strip_prefix('\u{feff}').unwrap_or(&line)
        };
        self.begun = true;
        if line.is_empty() {
            return Ok(self.dispatch());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                let data = self.data.get_or_insert_default();
                if data.len() + value.len() > MAX_BYTES {
                    return Err(TooLarge);
                }
                if !data.is_empty() {
                    data.push('\n');
                }
                data.push_str(value);
            }
            "event" => value.clone_into(&mut self.kind),
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            // Comments (no field before the colon), `retry`, and what later versions may add.
            _ => {}
        }
        Ok(None)
    }

    fn dispatch(&mut self) -> Option<SseEvent> {
        let kind = std::mem::take(&mut self.kind);
        let data = self.data.take()?;
        Some(SseEvent {
            id: self.id.clone(),
            kind: if kind.is_empty() {
                "message".to_owned()
            } else {
                kind
            },
            data,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> Vec<(String, String, String)> {
        let mut parser = SseParser::default();
        let events = pieces.iter().flat_map(|piece| parser.push(piece).unwrap());
        events
            .map(|event| (event.id, event.kind, event.data))
            .collect()
    }

    fn event(id: &str, kind: &str, data: &str) -> (String, String, String) {
        (id.to_owned(), kind.to_owned(), data.to_owned())
    }

    #[test]
    fn events_are_read_whatever_ends_their_lines_and_wherever_the_pieces_break() {
        let text = "\u{feff}retry: 3000\n: hello\n\nid: 1\nevent: a\ndata: {\"é\":1}\n\n\
                    data: no kind, same id\n\nid:2\ndata:x\ndata\ndata: y\n\n: tick\n\nevent: a\n\n\
                    data: left over";
        let expected = [
            event("1", "a", "{\"é\":1}"),
            event("1", "message", "no kind, same id"),
            event("2", "message", "x\n\ny"),
        ];
        for end in ["\n", "\r\n", "\r"] {
            let bytes = text.replace('\n', end).into_bytes();
            assert_eq!(read(&[&bytes]), expected, "{end:?}");
            let single: Vec<_> = bytes.chunks(1).collect();
            assert_eq!(read(&single), expected, "{end:?}");
            for cut in 0..bytes.len() {
                assert_eq!(read(&[&bytes[..cut], &bytes[cut..]]), expected, "{cut}");
            }
        }
    }

    #[test]
    fn an_event_without_data_is_none_and_does_not_pass_its_kind_on() {
        assert_eq!(
            read(&[b"event: a\n\ndata: x\n\n"]),
            [event("", "message", "x")]
        );
        assert_eq!(read(&[b"id: \0\ndata\n\n"]), [event("", "message", "")]);
    }

    #[test]
    fn i31_a_line_and_an_event_have_a_longest_size() {
        let mut parser = SseParser::default();
        assert_eq!(parser.push(&vec![b'x'; MAX_BYTES + 1]), Err(TooLarge));
        let mut parser = SseParser::default();
        let line = format!("data: {}\n", "x".repeat(MAX_BYTES / 2));
        assert_eq!(parser.push(line.as_bytes()), Ok(Vec::new()));
        assert_eq!(parser.push(line.as_bytes()), Ok(Vec::new()));
        assert_eq!(parser.push(line.as_bytes()), Err(TooLarge));
    }
}
