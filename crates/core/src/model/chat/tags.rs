//! transformers' own `{% generation %}` … `{% endgeneration %}`, written as a filter block, which minijinja knows.
//!
//! Knows where expressions, statements, comments and raw blocks begin and end, and nothing of what they mean.

use std::borrow::Cow;

/// The filter that stands for the tag.
pub const FILTER: &str = "generation";

/// A template's source with newlines as Jinja2 reads them and without the tag, and whether it had any.
///
/// The tag's body is a scope of its own, as in transformers; white space control stays with the outer edges.
pub fn rewrite(source: &str) -> (String, bool) {
    let source = newlines(source);
    let mut rest: &str = &source;
    let mut out = String::with_capacity(source.len());
    let mut found = false;
    while let Some(at) = start(rest) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let length = length(rest);
        let tag = &rest[..length];
        let replaced = statement(tag).and_then(|parts| parts.replaced());
        found |= replaced.is_some();
        out.push_str(replaced.as_deref().unwrap_or(tag));
        rest = &rest[length..];
        if statement(tag).is_some_and(|parts| parts.name == "raw") {
            let body = raw(rest);
            out.push_str(&rest[..body]);
            rest = &rest[body..];
        }
    }
    out.push_str(rest);
    (out, found)
}

fn newlines(source: &str) -> Cow<'_, str> {
    match source.contains('\r') {
        true => Cow::Owned(source.replace("\r\n", "\n").replace('\r', "\n")),
        false => Cow::Borrowed(source),
    }
}

/// Where the next expression, statement or comment begins.
fn start(text: &str) -> Option<usize> {
    ["{{", "{%", "{#"].iter().filter_map(|open| text.find(open)).min()
}

/// How long it is: through its closing mark, which does not count inside of a string.
fn length(tag: &str) -> usize {
    let close = match tag.as_bytes().get(1) {
        Some(b'#') => return tag.find("#}").map_or(tag.len(), |at| at + 2),
        Some(b'%') => "%}",
        _ => "}}",
    };
    let mut quote = None;
    let mut escaped = false;
    for (at, character) in tag.char_indices().skip(2) {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if character == '\\' => escaped = true,
            Some(open) if character == open => quote = None,
            Some(_) => {}
            None if tag[at..].starts_with(close) => return at + close.len(),
            None if matches!(character, '"' | '\'') => quote = Some(character),
            None => {}
        }
    }
    tag.len()
}

/// How far a raw block's body reaches.
fn raw(text: &str) -> usize {
    let mut from = 0;
    while let Some(at) = text[from..].find("{%") {
        let at = from + at;
        let end = text[at..].find("%}").map_or(text.len(), |end| at + end + 2);
        if statement(&text[at..end]).is_some_and(|parts| parts.name == "endraw") {
            return at;
        }
        from = at + 2;
    }
    text.len()
}

/// `{%- name -%}`.
struct Statement<'a> {
    before: &'a str,
    name: &'a str,
    after: &'a str,
}

fn statement(tag: &str) -> Option<Statement<'_>> {
    let inside = tag.strip_prefix("{%")?.strip_suffix("%}")?;
    let name = inside.strip_prefix(['-', '+']).unwrap_or(inside);
    let before = &inside[..inside.len() - name.len()];
    let trimmed = name.strip_suffix(['-', '+']).unwrap_or(name);
    Some(Statement { before, name: trimmed.trim(), after: &name[trimmed.len()..] })
}

impl Statement<'_> {
    fn replaced(&self) -> Option<String> {
        let Self { before, name, after } = self;
        match *name {
            "generation" => Some(format!("{{%{before} filter {FILTER} %}}{{% with {after}%}}")),
            "endgeneration" => Some(format!("{{%{before} endwith %}}{{% endfilter {after}%}}")),
            _ => None,
        }
    }
}
