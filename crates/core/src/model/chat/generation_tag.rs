//! Rewrites transformers' `{% generation %}` … `{% endgeneration %}` to a filter block, which minijinja supports.

use std::borrow::Cow;

/// Name of the filter.
pub const GENERATION_FILTER: &str = "generation";

/// Rewrites the tags and normalizes newlines as Jinja2 does. Returns the source, and whether it had any tag.
///
/// The body of the tag is a scope of its own, as in transformers. Whitespace control stays on the outer edges.
pub fn rewrite_generation_tags(source: &str) -> (String, bool) {
    let source = normalize_newlines(source);
    let mut rest: &str = &source;
    let mut out = String::with_capacity(source.len());
    let mut has_generation_tags = false;
    while let Some(start) = find_tag_start(rest) {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let tag_length = tag_length(rest);
        let tag = &rest[..tag_length];
        let filter_block = parse_statement(tag).and_then(|parts| parts.to_filter_block());
        has_generation_tags |= filter_block.is_some();
        out.push_str(filter_block.as_deref().unwrap_or(tag));
        rest = &rest[tag_length..];
        if parse_statement(tag).is_some_and(|parts| parts.name == "raw") {
            let body_length = raw_block_length(rest);
            out.push_str(&rest[..body_length]);
            rest = &rest[body_length..];
        }
    }
    out.push_str(rest);
    (out, has_generation_tags)
}

fn normalize_newlines(source: &str) -> Cow<'_, str> {
    match source.contains('\r') {
        true => Cow::Owned(source.replace("\r\n", "\n").replace('\r', "\n")),
        false => Cow::Borrowed(source),
    }
}

/// Offset of the next expression, statement or comment.
fn find_tag_start(text: &str) -> Option<usize> {
    ["{{", "{%", "{#"].iter().filter_map(|open| text.find(open)).min()
}

/// Length of an expression, statement or comment with its delimiters. Delimiters in strings do not count.
fn tag_length(tag: &str) -> usize {
    let closing_delimiter = match tag.as_bytes().get(1) {
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
            None if tag[at..].starts_with(closing_delimiter) => return at + closing_delimiter.len(),
            None if matches!(character, '"' | '\'') => quote = Some(character),
            None => {}
        }
    }
    tag.len()
}

/// Length of the body of a raw block.
fn raw_block_length(text: &str) -> usize {
    let mut offset = 0;
    while let Some(relative_start) = text[offset..].find("{%") {
        let tag_start = offset + relative_start;
        let tag_end = text[tag_start..].find("%}").map_or(text.len(), |end| tag_start + end + 2);
        if parse_statement(&text[tag_start..tag_end]).is_some_and(|parts| parts.name == "endraw") {
            return tag_start;
        }
        offset = tag_start + 2;
    }
    text.len()
}

/// A statement `{%- name -%}`.
struct StatementTag<'a> {
    left_control: &'a str,
    name: &'a str,
    right_control: &'a str,
}

fn parse_statement(tag: &str) -> Option<StatementTag<'_>> {
    let inner = tag.strip_prefix("{%")?.strip_suffix("%}")?;
    let name = inner.strip_prefix(['-', '+']).unwrap_or(inner);
    let left_control = &inner[..inner.len() - name.len()];
    let name_without_control = name.strip_suffix(['-', '+']).unwrap_or(name);
    Some(StatementTag {
        left_control,
        name: name_without_control.trim(),
        right_control: &name[name_without_control.len()..],
    })
}

impl StatementTag<'_> {
    fn to_filter_block(&self) -> Option<String> {
        let Self { left_control: left, name, right_control: right } = self;
        match *name {
            "generation" => Some(format!("{{%{left} filter {GENERATION_FILTER} %}}{{% with {right}%}}")),
            "endgeneration" => Some(format!("{{%{left} endwith %}}{{% endfilter {right}%}}")),
            _ => None,
        }
    }
}
