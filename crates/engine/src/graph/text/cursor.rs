//! Reads one line of the text form from left to right.

use super::is_plain_char;
use std::str::FromStr;

pub(super) type Result<T> = std::result::Result<T, String>;

/// Sizes in one list: what [`crate::graph::shape`] allows and some more, so that its message is the one that is seen.
const MAX_SIZES: usize = 16;

/// The rest of a line.
pub(super) struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(line: &'a str) -> Self {
        Self { rest: line.trim() }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes `token` and the space behind it, if it is next.
    pub(super) fn eat(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest.trim_start();
                true
            }
            None => false,
        }
    }

    pub(super) fn next_is(&self, token: &str) -> bool {
        self.rest.starts_with(token)
    }

    pub(super) fn expect(&mut self, token: &str) -> Result<()> {
        if self.eat(token) { Ok(()) } else { self.wanted(&format!("`{token}`")) }
    }

    /// The error that says what was expected here.
    pub(super) fn wanted<T>(&self, what: &str) -> Result<T> {
        let found: String = self.rest.chars().take(20).collect();
        match found.as_str() {
            "" => Err(format!("expected {what} before the end of the line")),
            _ => Err(format!("expected {what}, found `{found}`")),
        }
    }

    /// Takes the characters for which `test` holds, and the space behind them.
    fn take_while(&mut self, test: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !test(c)).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        token
    }

    /// A keyword: letters, digits and underscores.
    pub(super) fn word(&mut self, what: &str) -> Result<&'a str> {
        match self.take_while(|c| c.is_ascii_alphanumeric() || c == '_') {
            "" => self.wanted(what),
            word => Ok(word),
        }
    }

    /// A name, plain or in quotes.
    pub(super) fn name(&mut self, what: &str) -> Result<String> {
        if self.next_is("\"") {
            return self.quoted();
        }
        match self.take_while(is_plain_char) {
            "" => self.wanted(what),
            name => Ok(name.to_owned()),
        }
    }

    /// A string in quotes.
    pub(super) fn quoted(&mut self) -> Result<String> {
        let mut text = String::new();
        let mut chars = self.rest.chars();
        if chars.next() != Some('"') {
            return self.wanted("a string in quotes");
        }
        loop {
            match chars.next().ok_or("a string has no closing quote")? {
                '"' => break,
                '\\' => text.push(escaped(&mut chars)?),
                c => text.push(c),
            }
        }
        self.rest = chars.as_str().trim_start();
        Ok(text)
    }

    /// A number, up to the next space, comma or bracket.
    pub(super) fn number<T: FromStr>(&mut self, what: &str) -> Result<T> {
        let mut ahead = Self { rest: self.rest };
        let token = ahead.take_while(|c| !c.is_whitespace() && !",()[]#".contains(c));
        match token.parse() {
            Ok(number) => {
                *self = ahead;
                Ok(number)
            }
            Err(_) => self.wanted(what),
        }
    }

    /// `[1, 2]`.
    pub(super) fn sizes(&mut self) -> Result<Vec<usize>> {
        self.list(MAX_SIZES, "a size")
    }

    /// Up to `limit` numbers in brackets.
    pub(super) fn list<T: FromStr>(&mut self, limit: usize, what: &str) -> Result<Vec<T>> {
        self.expect("[")?;
        let mut list = Vec::new();
        while !self.eat("]") {
            if !list.is_empty() {
                self.expect(",")?;
            }
            if list.len() == limit {
                return Err(format!("a list has more than {limit} numbers"));
            }
            list.push(self.number(what)?);
        }
        Ok(list)
    }
}

/// The character behind a backslash.
fn escaped(chars: &mut std::str::Chars<'_>) -> Result<char> {
    let c = match chars.next() {
        Some('n') => '\n',
        Some('r') => '\r',
        Some('t') => '\t',
        Some('0') => '\0',
        Some(c @ ('"' | '\'' | '\\')) => c,
        Some('u') => {
            let digits: String = chars.by_ref().take_while(|&c| c != '}').filter(|&c| c != '{').collect();
            let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
            return code.ok_or_else(|| format!("`\\u{{{digits}}}` is no character"));
        }
        _ => return Err("a backslash in a string is followed by no known escape".into()),
    };
    Ok(c)
}
