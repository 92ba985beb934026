//! The commands in a page's shell blocks.

/// Line numbers and commands of the blocks marked `sh`, without comments, with continued lines joined.
pub(crate) fn commands(page: &str) -> Vec<(usize, String)> {
    let (mut inside, mut found) = (false, Vec::new());
    let mut pending: Option<(usize, String)> = None;
    for (index, line) in page.lines().enumerate() {
        if let Some(info) = line.trim_start().strip_prefix("```") {
            inside = !inside && info == "sh";
            continue;
        }
        if !inside {
            continue;
        }
        let text = without_comment(line).trim();
        let (number, mut command) = pending.take().unwrap_or((index + 1, String::new()));
        command += text.strip_suffix('\\').unwrap_or(text);
        if text.ends_with('\\') {
            pending = Some((number, command));
        } else if in_quotes(&command) {
            pending = Some((number, command + "\n"));
        } else if !command.is_empty() {
            found.push((number, command));
        }
    }
    found
}

/// Whether a quote is still open at the end.
fn in_quotes(command: &str) -> bool {
    let (mut quote, mut escaped) = (None, false);
    for c in command.chars() {
        match quote {
            _ if escaped => escaped = false,
            Some('\'') | None if c == '\'' => quote = if quote.is_some() { None } else { Some('\'') },
            Some('"') | None if c == '"' => quote = if quote.is_some() { None } else { Some('"') },
            _ => escaped = c == '\\' && quote != Some('\''),
        }
    }
    quote.is_some()
}

/// The line up to a `#` that begins a word outside of quotes.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let mut before = ' ';
    for (place, c) in line.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '\'' || c == '"' => quote = Some(c),
            None if c == '#' && before.is_whitespace() => return &line[..place],
            _ => {}
        }
        before = c;
    }
    line
}

#[test]
fn comments_and_continued_lines_are_understood() {
    let page = "text\n```sh\na 'b # c' # d\n# e\nf \\\n  g\nh \"i\\\"\n  j\"\n```\n```toml\nk\n```\n";
    let expected = [(3, "a 'b # c'"), (5, "f g"), (7, "h \"i\\\"\nj\"")];
    assert_eq!(commands(page), expected.map(|(line, text)| (line, text.to_owned())));
}
