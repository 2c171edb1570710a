//! A Rust file as the floor plan sees it: its code without comments, texts and tests, and the
//! paths that this code names.
//!
//! This is no parser. It knows words, marks and brackets, and the few shapes that name things:
//! `use` trees and paths. What a macro makes up out of pieces stays hidden from it.

/// One word or mark of code, and the line it stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub text: String,
    pub line: usize,
}

/// A path that code names, from its first segment on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub segments: Vec<String>,
    pub line: usize,
}

/// The code of one file.
pub struct Source {
    pub tokens: Vec<Token>,
    /// Modules that exist in test builds only; their files are no part of the plan.
    pub test_modules: Vec<String>,
}

impl Source {
    pub fn read(text: &str) -> Self {
        let mut source = Self { tokens: tokens(text), test_modules: Vec::new() };
        source.drop_tests();
        source
    }

    /// First segments of every path in a text, tests included.
    pub fn crates_in(text: &str) -> Vec<String> {
        let whole = Self { tokens: tokens(text), test_modules: Vec::new() };
        whole.paths().into_iter().map(|path| path.segments[0].clone()).collect()
    }

    /// The line of the first `word`.
    pub fn has_word(&self, word: &str) -> Option<usize> {
        self.tokens.iter().find(|token| token.text == word).map(|token| token.line)
    }

    fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| &token.text)
    }

    /// Cuts out every item behind `#[cfg(test)]`.
    fn drop_tests(&mut self) {
        const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
        let mut at = 0;
        while at < self.tokens.len() {
            if (0..MARK.len()).all(|n| self.text(at + n) == MARK[n]) {
                let end = self.item_end(at + MARK.len());
                let item = at + MARK.len()..end;
                let module = item.clone().find(|&n| self.text(n) == "mod");
                if let Some(module) = module.filter(|_| self.text(end - 1) == ";") {
                    self.test_modules.push(self.text(module + 1).to_owned());
                }
                self.tokens.drain(at..end);
            } else {
                at += 1;
            }
        }
    }

    /// One past the item that begins at `at`: past its `;` or its last brace.
    fn item_end(&self, at: usize) -> usize {
        let mut depth = 0_usize;
        for n in at..self.tokens.len() {
            match self.text(n) {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" => depth = depth.saturating_sub(1),
                "}" if depth <= 1 => return n + 1,
                "}" => depth -= 1,
                ";" if depth == 0 => return n + 1,
                _ => {}
            }
        }
        self.tokens.len()
    }

    /// Constants that items of this file define, with their lines.
    pub fn constants(&self) -> impl Iterator<Item = &Token> {
        let named = self.tokens.windows(3).filter(|three| three[0].text == "const");
        named.filter(|three| three[2].text == ":").map(|three| &three[1])
    }

    /// Every path of two segments and more, and every path of a `use`. Names that the file itself
    /// brings in, by `use` or `mod`, begin no path to the outside.
    pub fn paths(&self) -> Vec<Named> {
        let (mut found, mut local, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        let mut modules = Vec::new();
        let mut at = 0;
        while at < self.tokens.len() {
            match self.text(at) {
                "use" => {
                    let first = found.len();
                    at = self.use_tree(at + 1, &[], &mut found, &mut local);
                    // A crate under its own name is still that crate.
                    let outside: Vec<_> =
                        found[first..].iter().map(|path| path.segments[0].clone()).collect();
                    local.retain(|name| !outside.contains(name));
                }
                "mod" => {
                    modules.push(self.text(at + 1).to_owned());
                    at += 2;
                }
                _ if self.begins_path(at) => {
                    let (path, end) = self.path(at);
                    rest.push(path);
                    at = end;
                }
                _ => at += 1,
            }
        }
        found.extend(rest);
        found.retain(|path| ![&local, &modules].iter().any(|own| own.contains(&path.segments[0])));
        found
    }

    fn begins_path(&self, at: usize) -> bool {
        let before = at.checked_sub(1).map_or("", |before| self.text(before));
        let start = is_word(self.text(at)) && self.text(at + 1) == "::";
        start && before != "."
    }

    fn path(&self, at: usize) -> (Named, usize) {
        let line = self.tokens[at].line;
        let (mut segments, mut at) = (vec![self.text(at).to_owned()], at + 1);
        while self.text(at) == "::" && is_word(self.text(at + 1)) {
            segments.push(self.text(at + 1).to_owned());
            at += 2;
        }
        (Named { segments, line }, at)
    }

    /// Reads one tree of a `use` and returns what follows it.
    fn use_tree(
        &self,
        mut at: usize,
        above: &[String],
        found: &mut Vec<Named>,
        local: &mut Vec<String>,
    ) -> usize {
        let line = self.tokens.get(at).map_or(0, |token| token.line);
        let mut segments = above.to_vec();
        loop {
            match self.text(at) {
                "::" => at += 1,
                "{" => {
                    at += 1;
                    while !matches!(self.text(at), "}" | "") {
                        at = self.use_tree(at, &segments, found, local);
                        at += usize::from(self.text(at) == ",");
                    }
                    return at + 1;
                }
                "as" => {
                    local.push(self.text(at + 1).to_owned());
                    at += 2;
                    break;
                }
                word if is_word(word) || word == "*" => {
                    segments.push(word.to_owned());
                    at += 1;
                    if self.text(at) != "::" && self.text(at) != "as" {
                        let name = segments.iter().rev().find(|name| *name != "self");
                        local.extend(name.filter(|_| segments.len() > 1).cloned());
                        break;
                    }
                }
                _ => break,
            }
        }
        if !segments.is_empty() {
            found.push(Named { segments, line });
        }
        at
    }
}

fn is_word(text: &str) -> bool {
    text.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// Splits text into words, numbers and marks; `::` is one mark. Comments, texts and characters
/// are left out.
fn tokens(text: &str) -> Vec<Token> {
    let (mut tokens, mut rest, mut line) = (Vec::new(), text, 1);
    while let Some(first) = rest.chars().next() {
        let len = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => comment_bytes(rest),
            '"' => 1 + text_bytes(&rest[1..]),
            '\'' => character_bytes(rest),
            'r' | 'b' | 'c' if raw_bytes(rest).is_some() => raw_bytes(rest).unwrap_or(1),
            'b' | 'c' if rest[1..].starts_with('"') => 2 + text_bytes(&rest[2..]),
            ':' if rest.starts_with("::") => 2,
            _ if first.is_alphanumeric() || first == '_' => {
                rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
            }
            _ => first.len_utf8(),
        };
        let (token, behind) = rest.split_at(len);
        let silent = first.is_whitespace()
            || token.starts_with("//")
            || token.starts_with("/*")
            || token.ends_with(['"', '\'', '#']) && len > 1;
        if !silent {
            tokens.push(Token { text: token.to_owned(), line });
        }
        line += token.matches('\n').count();
        rest = behind;
    }
    tokens
}

/// Bytes of a comment with its marks; such comments nest.
fn comment_bytes(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// Bytes up to and with the quote that ends a text.
fn text_bytes(text: &str) -> usize {
    let mut escaped = false;
    let end = text.bytes().position(|byte| {
        let end = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        end
    });
    end.map_or(text.len(), |end| end + 1)
}

/// Bytes of a raw text, if one begins here.
fn raw_bytes(text: &str) -> Option<usize> {
    let body = text.strip_prefix(['b', 'c']).unwrap_or(text).strip_prefix('r')?;
    let marks = body.bytes().take_while(|byte| *byte == b'#').count();
    let inside = body[marks..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(marks));
    let end = inside.find(&close).map_or(inside.len(), |end| end + close.len());
    Some(text.len() - inside.len() + end)
}

/// Bytes of a character; 1 where the quote begins a lifetime.
fn character_bytes(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((at, _))) => {
            let close = text[at + 1..].find('\'').map_or(text.len(), |end| at + end + 2);
            close.min(text.len())
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}
