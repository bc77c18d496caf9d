//! Patterns over paths in the store: `*`, `?`, `[a-z]`, `[!a-z]`, `**`. Pure, and linear in what it
//! matches times what it matches with, whatever the pattern.
//!
//! `*` and `?` stay inside a segment; `**` is any number of segments, where it is a segment of its
//! own. A backslash takes the meaning from the character behind it. Names that start with a dot are
//! names like others: the store hides nothing.

/// Longest pattern.
const MAX_BYTES: usize = 4096;
/// Most segments with wildcards.
const MAX_WILD: usize = 32;

/// A path with wildcards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    segments: Vec<Segment>,
    /// Leading segments without wildcards, as a directory: empty, or with a slash at the end.
    base: String,
    /// How many those are.
    literal: usize,
    /// Ends in a slash: directories only.
    directory: bool,
}

/// One segment of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// `**`.
    Any,
    /// Anything else, without wildcards too.
    One(Vec<Token>),
}

/// What one or several characters of a name are held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// This character.
    Char(char),
    /// `?`.
    Single,
    /// `*`.
    Many,
    /// `[a-z]` or `[!a-z]`.
    Set {
        /// Any character but those.
        negated: bool,
        /// First and last of each range.
        ranges: Vec<(char, char)>,
    },
}

/// A pattern that is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Longer than any name.
    #[error("the pattern is longer than {MAX_BYTES} bytes")]
    TooLong,
    /// Too much to look for.
    #[error("the pattern has wildcards in more than {MAX_WILD} segments")]
    TooMany,
}

impl Pattern {
    /// Reads a path; `None` when it has no wildcard.
    pub fn parse(text: &str) -> Result<Option<Self>, PatternError> {
        let text = text.strip_prefix('/').unwrap_or(text);
        let (text, directory) = match text.strip_suffix('/') {
            Some(text) => (text, true),
            None => (text, false),
        };
        let segments: Vec<_> = text.split('/').map(Segment::parse).collect();
        let Some(literal) = segments.iter().position(Segment::is_wild) else {
            return Ok(None);
        };
        if text.len() > MAX_BYTES {
            return Err(PatternError::TooLong);
        }
        if segments.iter().filter(|segment| segment.is_wild()).count() > MAX_WILD {
            return Err(PatternError::TooMany);
        }
        let mut base = String::new();
        for segment in &segments[..literal] {
            base.push_str(&segment.start());
            base.push('/');
        }
        Ok(Some(Self {
            segments,
            base,
            literal,
            directory,
        }))
    }

    /// The directory below which everything that matches lies: empty, or with a slash at the end.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Segments of [`Self::base`].
    pub fn base_len(&self) -> usize {
        self.literal
    }

    /// All segments.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Whether only directories match.
    pub fn is_directory(&self) -> bool {
        self.directory
    }

    /// Whether it names everything: nothing but stars.
    pub fn is_everything(&self) -> bool {
        self.segments.iter().all(|segment| match segment {
            Segment::Any => true,
            Segment::One(tokens) => tokens.iter().all(|token| *token == Token::Many),
        })
    }
}

impl Segment {
    fn parse(text: &str) -> Self {
        if text == "**" {
            return Self::Any;
        }
        let characters: Vec<_> = text.chars().collect();
        let mut rest = characters.as_slice();
        let mut tokens = Vec::new();
        while let [first, behind @ ..] = rest {
            let (token, left) = match (first, behind) {
                ('\\', [escaped, behind @ ..]) => (Token::Char(*escaped), behind),
                ('*', _) => (Token::Many, behind),
                ('?', _) => (Token::Single, behind),
                ('[', _) => read_set(behind).unwrap_or((Token::Char('['), behind)),
                (plain, _) => (Token::Char(*plain), behind),
            };
            // Two stars in a row mean one, and would only cost time.
            if token != Token::Many || tokens.last() != Some(&Token::Many) {
                tokens.push(token);
            }
            rest = left;
        }
        Self::One(tokens)
    }

    /// Whether it matches anything but one name.
    pub fn is_wild(&self) -> bool {
        match self {
            Self::Any => true,
            Self::One(tokens) => !tokens.iter().all(|token| matches!(token, Token::Char(_))),
        }
    }

    /// What every name that matches begins with.
    pub fn start(&self) -> String {
        let tokens: &[_] = match self {
            Self::Any => &[],
            Self::One(tokens) => tokens,
        };
        tokens
            .iter()
            .map_while(|token| match token {
                Token::Char(plain) => Some(*plain),
                Token::Single | Token::Many | Token::Set { .. } => None,
            })
            .collect()
    }

    /// Whether a name matches. `**` matches every one.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::One(tokens) => {
                let characters: Vec<_> = name.chars().collect();
                let is_star = |token: &Token| *token == Token::Many;
                matches_all(tokens, &characters, is_star, |token, one| {
                    token.matches(*one)
                })
            }
        }
    }
}

impl Token {
    fn matches(&self, character: char) -> bool {
        match self {
            Self::Char(plain) => *plain == character,
            Self::Single | Self::Many => true,
            Self::Set { negated, ranges } => {
                let within = |(first, last): &(char, char)| (*first..=*last).contains(&character);
                ranges.iter().any(within) != *negated
            }
        }
    }
}

/// Whether the segments of a path match.
pub fn matches_path(segments: &[Segment], path: &str) -> bool {
    let names: Vec<_> = path.split('/').collect();
    let is_star = |segment: &Segment| *segment == Segment::Any;
    matches_all(segments, &names, is_star, |segment, name| {
        segment.matches(name)
    })
}

/// Holds items against wanted ones, of which some are stars: any number of items. Only the last
/// star met is ever given another item, so that the time is at most the product of both lengths.
fn matches_all<W, I>(
    wanted: &[W],
    items: &[I],
    is_star: impl Fn(&W) -> bool,
    matches: impl Fn(&W, &I) -> bool,
) -> bool {
    let (mut at, mut item) = (0, 0);
    let mut last_star = None;
    while item < items.len() {
        match wanted.get(at) {
            Some(star) if is_star(star) => {
                last_star = Some((at, item));
                at += 1;
            }
            Some(one) if matches(one, &items[item]) => {
                at += 1;
                item += 1;
            }
            _ => match last_star {
                Some((star, taken)) => {
                    last_star = Some((star, taken + 1));
                    (at, item) = (star + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    wanted[at..].iter().all(is_star)
}

/// Reads `a-z]` and what is behind; `None` when there is no end: then `[` is a character.
fn read_set(text: &[char]) -> Option<(Token, &[char])> {
    let (negated, mut rest) = match text {
        ['!' | '^', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let mut ranges = Vec::new();
    loop {
        // A bracket that comes first stands for itself.
        let (first, behind) = match rest {
            [']', behind @ ..] if !ranges.is_empty() => {
                return Some((Token::Set { negated, ranges }, behind));
            }
            ['\\', first, behind @ ..] | [first, behind @ ..] => (*first, behind),
            [] => return None,
        };
        match behind {
            ['-', last, behind @ ..] if *last != ']' => {
                ranges.push((first, *last));
                rest = behind;
            }
            _ => {
                ranges.push((first, first));
                rest = behind;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap().unwrap()
    }

    fn matches(text: &str, path: &str) -> bool {
        matches_path(pattern(text).segments(), path)
    }

    #[test]
    fn wildcards_match_inside_a_segment_and_two_stars_across() {
        for (text, path, expected) in [
            ("*.jpg", "a.jpg", true),
            ("*.jpg", ".jpg", true),
            ("*.jpg", "d/a.jpg", false),
            ("*.jpg", "a.jpeg", false),
            ("p/*/x", "p/a/x", true),
            ("p/*/x", "p/x", false),
            ("p/*/x", "p/a/b/x", false),
            ("a?c", "abc", true),
            ("a?c", "aéc", true),
            ("a?c", "ac", false),
            ("a?c", "a/c", false),
            ("[a-c]x", "bx", true),
            ("[a-c]x", "dx", false),
            ("[!a-c]x", "dx", true),
            ("[^a-c]x", "bx", false),
            ("[]]x", "]x", true),
            ("[a-]x", "-x", true),
            ("[z-a]x", "bx", false),
            ("**", "a/b/c", true),
            ("**/x", "x", true),
            ("**/x", "a/b/x", true),
            ("a/**/x", "a/x", true),
            ("a/**/x", "a/b/c/x", true),
            ("a/**/x", "b/x", false),
            ("a/**", "a/b", true),
            ("a/**/b/**/c", "a/b/b/c", true),
            ("a/**/b/**/c", "a/c", false),
            ("a**b*", "axxb", true),
            ("a**b*", "a/b", false),
            ("\\*?", "*x", true),
            ("\\*?", "ax", false),
            ("[\\]]?", "]x", true),
            ("x\\[*", "x[1]", true),
        ] {
            assert_eq!(matches(text, path), expected, "{text} {path}");
        }
    }

    #[test]
    fn paths_without_wildcards_are_none() {
        for text in [
            "", "/", "a/b", "a[b", "a\\*b", "a\\?", "\\[a]", "a]b", "[", "[!", "[]",
        ] {
            assert_eq!(Pattern::parse(text), Ok(None), "{text}");
        }
    }

    #[test]
    fn the_base_ends_before_the_first_wildcard_and_the_rest_knows_its_start() {
        let parsed = pattern("/photos/a\\*b/2024-*/x?/");
        assert_eq!(parsed.base(), "photos/a*b/");
        assert_eq!(parsed.base_len(), 2);
        assert!(parsed.is_directory());
        assert_eq!(parsed.segments()[2].start(), "2024-");
        assert_eq!(parsed.segments()[3].start(), "x");
        assert_eq!(pattern("*").base(), "");
        assert!(pattern("*/**").is_everything());
        assert!(!pattern("a/*").is_everything());
        assert!(!pattern("?*").is_everything());
    }

    #[test]
    fn i32_patterns_are_bounded() {
        assert_eq!(Pattern::parse(&"*/".repeat(33)), Err(PatternError::TooMany));
        assert_eq!(
            Pattern::parse(&"?".repeat(4097)),
            Err(PatternError::TooLong)
        );
        // What takes a naive matcher longer than the universe has.
        let text = "*a".repeat(300);
        assert!(!matches(&text, &"a".repeat(299)));
        let text = "**/a/".repeat(30) + "b";
        assert!(!matches(&text, &"a/".repeat(500)));
    }

    /// The definition, exponential and plain to see.
    fn slow(tokens: &[Token], name: &[char]) -> bool {
        match (tokens, name) {
            ([], []) => true,
            ([Token::Many, rest @ ..], _) => {
                slow(rest, name) || (!name.is_empty() && slow(tokens, &name[1..]))
            }
            ([token, rest @ ..], [first, behind @ ..]) => {
                token.matches(*first) && slow(rest, behind)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_definition(text in "[ab*?]{1,9}", name in "[ab]{0,9}") {
            if let Segment::One(tokens) = Segment::parse(&text) {
                let characters: Vec<_> = name.chars().collect();
                let expected = slow(&tokens, &characters);
                prop_assert_eq!(Segment::One(tokens).matches(&name), expected);
            }
        }

        #[test]
        fn i32_no_text_stops_the_parser(text in ".{0,40}", path in ".{0,40}") {
            if let Ok(Some(pattern)) = Pattern::parse(&text) {
                matches_path(pattern.segments(), &path);
            }
        }
    }
}
