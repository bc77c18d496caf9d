//! One request's way through the roles: W3C trace context, as the header `traceparent` has it. What
//! comes from outside is an id and nothing more.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes of a context as text.
pub const TRACEPARENT_LEN: usize = 55;
/// Longest text that is looked at: later versions may say more than we read.
const MOST_READ: usize = 256;
/// The flag of a trace that is written down.
const SAMPLED: u8 = 1;

/// Names a request from the first door to the last hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId(NonZeroU128);

impl TraceId {
    /// Of random bits; zero names no trace.
    pub fn from_random(bits: u128) -> Self {
        Self(NonZeroU128::new(bits).unwrap_or(NonZeroU128::MIN))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Names one part of a trace: a request at one role, or a call that it makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId(NonZeroU64);

impl SpanId {
    /// Of random bits; zero names no part.
    pub fn from_random(bits: u64) -> Self {
        Self(NonZeroU64::new(bits).unwrap_or(NonZeroU64::MIN))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Where in a trace something happens. Its text is a `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// The request.
    pub trace: TraceId,
    /// The part of it that others belong under.
    pub span: SpanId,
    /// Whether its parts are written down.
    pub sampled: bool,
}

impl TraceContext {
    /// The text, without room of its own on the heap.
    pub fn traceparent(&self) -> [u8; TRACEPARENT_LEN] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        hex(&mut text[3..35], self.trace.0.get());
        hex(&mut text[36..52], u128::from(self.span.0.get()));
        hex(&mut text[53..], u128::from(u8::from(self.sampled)));
        text
    }
}

/// Writes the low digits of a number, as many as there is room for.
fn hex(room: &mut [u8], mut number: u128) {
    for digit in room.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.sampled);
        write!(f, "00-{}-{}-{flags:02x}", self.trace, self.span)
    }
}

/// A text that is no trace context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no traceparent; it has the form 00-TRACE-SPAN-FLAGS, in lowercase hex digits")]
pub struct InvalidTrace;

impl FromStr for TraceContext {
    type Err = InvalidTrace;

    fn from_str(text: &str) -> Result<Self, InvalidTrace> {
        if !text.is_ascii() || !(TRACEPARENT_LEN..=MOST_READ).contains(&text.len()) {
            return Err(InvalidTrace);
        }
        let (known, more) = text.split_at(TRACEPARENT_LEN);
        let mut parts = known.split('-');
        let mut part = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits);
            let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            let part = part.filter(|part| part.bytes().all(lower));
            part.ok_or(InvalidTrace)
        };
        let number = |part: &str| u128::from_str_radix(part, 16).map_err(|_| InvalidTrace);
        let (version, trace) = (part(2)?, number(part(32)?)?);
        let (span, flags) = (number(part(16)?)?, number(part(2)?)?);
        let is_whole = more.is_empty() || (version != "00" && more.starts_with('-'));
        if version == "ff" || !is_whole {
            return Err(InvalidTrace);
        }
        let span = u64::try_from(span).map_err(|_| InvalidTrace)?;
        Ok(Self {
            trace: TraceId(NonZeroU128::new(trace).ok_or(InvalidTrace)?),
            span: SpanId(NonZeroU64::new(span).ok_or(InvalidTrace)?),
            sampled: flags & u128::from(SAMPLED) != 0,
        })
    }
}

impl Serialize for TraceContext {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TraceContext {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_context_reads_back_as_it_was_written() {
        let context: TraceContext = TEXT.parse().unwrap();
        assert!(context.sampled);
        assert_eq!(context.to_string(), TEXT);
        assert_eq!(context.traceparent(), TEXT.as_bytes());
        let json = serde_json::to_string(&context).unwrap();
        assert_eq!(
            serde_json::from_str::<TraceContext>(&json).unwrap(),
            context
        );
        let quiet = TraceContext {
            sampled: false,
            ..context
        };
        assert!(quiet.to_string().ends_with("-00"));
        assert_eq!(TraceId::from_random(0).to_string().len(), 32);
        assert_eq!(SpanId::from_random(7).to_string(), "0000000000000007");
    }

    #[test]
    fn what_is_no_context_is_refused() {
        let no_trace = TEXT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32));
        let no_span = TEXT.replace("00f067aa0ba902b7", &"0".repeat(16));
        let bad = [
            "",
            "x",
            &TEXT[..54],
            &TEXT.to_uppercase(),
            &TEXT.replace("-01", "-0g"),
            &TEXT.replacen("00-", "ff-", 1),
            &TEXT.replacen("00-4b", "004-b", 1),
            &TEXT.replacen('4', "+", 1),
            &format!("{TEXT}-more"),
            &format!("{TEXT}é"),
            &format!("cc-{}-{}", &TEXT[3..], "x".repeat(300)),
            &no_trace,
            &no_span,
        ];
        for text in bad {
            assert_eq!(text.parse::<TraceContext>(), Err(InvalidTrace), "{text}");
        }
    }

    #[test]
    fn a_later_version_may_say_more() {
        let later = format!("cc-{}-more", &TEXT[3..]);
        let context: TraceContext = later.parse().unwrap();
        assert_eq!(context.to_string(), TEXT);
        let stuck = format!("cc-{}more", &TEXT[3..]);
        assert!(stuck.parse::<TraceContext>().is_err());
    }
}
