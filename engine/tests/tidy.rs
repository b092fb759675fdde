//! The house rules, told by text: which module may know which (DESIGN.md, 10), no glob imports, `unsafe` and printing only where they
//! belong, files and functions of a size that fits a head. Comments, strings and test code are left out.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const LINE_CHARS_MAX: usize = 120;

const OPERATIONS: [&str; 9] = [
    "backup",
    "restore",
    "browse",
    "maintain::check",
    "maintain::forget",
    "maintain::hold",
    "maintain::keys",
    "maintain::prune",
    "maintain::repair",
];

/// What a module may name besides itself.
fn may_name(unit: &str) -> &'static [&'static str] {
    match unit {
        unit if OPERATIONS.contains(&unit) => &["repo", "format", "watch", "error", "env", "sys"],
        "repo" => &["format", "store", "watch", "error", "env", "sys"],
        "format" => &["error"],
        "store" => &["error", "sys"],
        // Type names only: errors carry ids, roles and causes.
        "error" => &["format", "store"],
        _ => &[],
    }
}

/// File, module it names, why.
const ARROW_EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("backup/commit.rs", "store", "what became of the put tells committed from fenced"),
    ("maintain/check/stream.rs", "store", "reads packs with a key and without"),
    (
        "maintain/check/without_key.rs",
        "store",
        "without a key there is no repository, only a store",
    ),
    (
        "maintain/prune/carry_out.rs",
        "store",
        "names of what is present, to delete no more than that",
    ),
    ("maintain/prune/decide.rs", "store", "what became of the put tells fenced from committed"),
    (
        "format/seal/cipher.rs",
        "sys",
        "keys of a crate that does not wipe them are wiped by `sys::wipe`",
    ),
    ("maintain/keys.rs", "store", "what became of the put tells who won the race for a roster"),
];

const LONG_FILES: &[(&str, &str)] =
    &[("format/slot.rs", "roles, bundles and slots are one table of the format")];

/// File, function, why.
const LONG_FUNCTIONS: &[(&str, &str, &str)] = &[];

struct Source {
    /// Below `src`.
    name: String,
    text: String,
    /// The text with comments and strings blanked and test code cut; lines stay where they are, up to there.
    code: String,
}

impl Source {
    /// `maintain/check/data.rs` is `["maintain", "check", "data"]`.
    fn module(&self) -> Vec<&str> {
        let path = self.name.trim_end_matches(".rs");
        if path == "lib" { Vec::new() } else { path.split('/').collect() }
    }
}

/// Top module, or for the operations below `maintain` two steps.
fn unit(module: &[&str]) -> String {
    match module {
        ["maintain", operation, ..] => format!("maintain::{operation}"),
        [top, ..] => (*top).to_owned(),
        [] => String::new(),
    }
}

fn sources() -> &'static [Source] {
    static SOURCES: OnceLock<Vec<Source>> = OnceLock::new();
    SOURCES.get_or_init(read_sources)
}

fn read_sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let code = cut_tests(&blank(&text));
        Source { name, text, code }
    };
    let sources: Vec<_> = files.into_iter().map(read).collect();
    let tests: Vec<String> = sources.iter().flat_map(test_files).collect();
    sources.into_iter().filter(|source| !tests.contains(&source.name)).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

const TEST: &str = "#[cfg(test)]";

/// Files of the modules that a source declares for tests only.
fn test_files(source: &Source) -> Vec<String> {
    let base = source.name.trim_end_matches(".rs");
    let folder = if base == "lib" { String::new() } else { format!("{base}/") };
    let blanked = blank(&source.text);
    let after = blanked.split(TEST).skip(1);
    let declared = after.filter_map(|rest| {
        let item = rest.split_once(';')?.0.trim().trim_start_matches("pub(crate) ");
        let name = item.trim_start_matches("pub ").strip_prefix("mod ")?;
        (!name.contains('{')).then(|| format!("{folder}{name}.rs"))
    });
    declared.collect()
}

/// Replaces comments, strings and characters by blanks; keeps line breaks.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let len = blanked_len(&chars[at..], chars[..at].last().copied());
        if len == 0 {
            out.push(chars[at]);
            at += 1;
            continue;
        }
        out.extend(chars[at..at + len].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        at += len;
    }
    out
}

/// Length of the comment or literal that begins here, 0 if none does.
fn blanked_len(rest: &[char], before: Option<char>) -> usize {
    if !matches!(rest[0], '/' | 'r' | '"' | '\'') {
        return 0;
    }
    let starts = |with: &str| with.chars().enumerate().all(|(i, c)| rest.get(i) == Some(&c));
    let find = |from: usize, wanted: &str| {
        let wanted: Vec<char> = wanted.chars().collect();
        let windows = rest.get(from..).unwrap_or_default().windows(wanted.len());
        windows
            .enumerate()
            .find(|(_, window)| *window == wanted)
            .map_or(rest.len(), |(i, _)| from + i)
    };
    if starts("//") {
        return find(0, "\n");
    }
    if starts("/*") {
        return (find(2, "*/") + 2).min(rest.len());
    }
    let inside_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if starts("r\"") || starts("r#") && !inside_word {
        let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
        if rest.get(1 + hashes) == Some(&'"') {
            let end = format!("\"{}", "#".repeat(hashes));
            return (find(2 + hashes, &end) + end.len()).min(rest.len());
        }
        return 0;
    }
    if starts("\"") {
        let mut at = 1;
        while at < rest.len() && rest[at] != '"' {
            at += if rest[at] == '\\' { 2 } else { 1 };
        }
        return (at + 1).min(rest.len());
    }
    match rest {
        ['\'', '\\', ..] => (find(3, "'") + 1).min(rest.len()),
        ['\'', _, '\'', ..] => 3,
        _ => 0,
    }
}

/// Cuts items marked for tests: to the end of their braces, or to their semicolon.
fn cut_tests(code: &str) -> String {
    let mut out = String::new();
    let mut rest = code;
    while let Some((before, after)) = rest.split_once(TEST) {
        out.push_str(before);
        let end = match (after.find('{'), after.find(';')) {
            (Some(open), semicolon) if semicolon.is_none_or(|at| open < at) => {
                open + braces_len(&after[open..])
            }
            (_, semicolon) => semicolon.map_or(after.len(), |at| at + 1),
        };
        rest = &after[end..];
    }
    out + rest
}

/// Length from an opening brace to behind its closing one.
fn braces_len(code: &str) -> usize {
    let mut depth = 0;
    for (at, c) in code.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where `word` stands in the code as a whole word.
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = code[..*at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

fn identifier(code: &str) -> &str {
    code.split(|c| !is_word(c)).next().unwrap_or_default()
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

fn report(what: &str, violations: &str) {
    assert!(violations.is_empty(), "{what}:\n{violations}");
}

/// Modules of ours that a file names, by full path.
fn named_modules(source: &Source) -> Vec<(usize, Vec<String>)> {
    let code = &source.code;
    let mut named = Vec::new();
    for at in words(code, "crate") {
        if let Some(rest) = code[at..].strip_prefix("crate::") {
            let first = identifier(rest).to_owned();
            let second =
                rest[first.len()..].strip_prefix("::").map(|rest| identifier(rest).to_owned());
            named.push((at, [Some(first), second].into_iter().flatten().collect()));
        }
    }
    for at in words(code, "super") {
        if code[..at].ends_with("super::") {
            continue;
        }
        let mut module = source.module();
        let mut rest = &code[at..];
        while let Some(after) = rest.strip_prefix("super::") {
            module.pop();
            rest = after;
        }
        let mut path: Vec<String> = module.into_iter().map(str::to_owned).collect();
        path.push(identifier(rest).to_owned());
        named.push((at, path));
    }
    named
}

#[test]
fn arrows_point_down() {
    let mut violations = String::new();
    for source in sources() {
        let module = source.module();
        let from = unit(&module);
        for (at, path) in named_modules(source) {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            let to = unit(&path);
            let top = path.first().copied().unwrap_or_default();
            let excepted = ARROW_EXCEPTIONS
                .iter()
                .any(|(file, module, _)| *file == source.name && (*module == to || *module == top));
            // Within the crate's root or a module that only holds others there is nothing to know.
            if from == to || from.is_empty() || may_name(&from).contains(&top) || excepted {
                continue;
            }
            let line = line_of(&source.code, at);
            writeln!(violations, "{}:{line}: {from} must not know {to}", source.name).unwrap();
        }
    }
    report("arrows that point up or sideways", &violations);
}

#[test]
fn no_globs_and_nothing_forbidden() {
    const FORBIDDEN: [&str; 7] =
        ["println!", "eprintln!", "print!", "eprint!", "dbg!", "process::exit", "std::env"];
    let mut violations = String::new();
    for source in sources() {
        let code = &source.code;
        let mut tell = |at: usize, what: &str| {
            writeln!(violations, "{}:{}: {what}", source.name, line_of(code, at)).unwrap();
        };
        code.match_indices("::*").for_each(|(at, _)| tell(at, "a glob import"));
        for word in FORBIDDEN {
            for (at, _) in code.match_indices(word) {
                if !code[..at].ends_with(is_word) {
                    tell(at, word);
                }
            }
        }
        if !source.name.starts_with("sys") {
            words(code, "unsafe").for_each(|at| tell(at, "`unsafe` outside of sys"));
        }
    }
    report("what the engine must not do", &violations);
}

#[test]
fn files_open_with_what_they_are_for() {
    let mut violations = String::new();
    for source in sources() {
        if !source.text.starts_with("//! ") {
            writeln!(violations, "{}", source.name).unwrap();
        }
    }
    report("files that do not open with `//!`", &violations);
}

#[test]
fn sizes() {
    let mut violations = String::new();
    for source in sources() {
        let Source { name, text, code } = source;
        let lines = code.trim_end().lines().count();
        if lines > FILE_LINES_MAX && !LONG_FILES.iter().any(|(file, _)| file == name) {
            writeln!(violations, "{name}: {lines} production lines").unwrap();
        }
        for (i, line) in text.lines().enumerate() {
            let chars = line.chars().count();
            if chars > LINE_CHARS_MAX {
                writeln!(violations, "{name}:{}: {chars} characters", i + 1).unwrap();
            }
        }
        for at in words(code, "fn") {
            let Some(function) = code[at..].strip_prefix("fn ").map(identifier) else { continue };
            let body = match (code[at..].find('{'), code[at..].find(';')) {
                (Some(open), semicolon) if semicolon.is_none_or(|end| open < end) => open,
                _ => continue,
            };
            let whole = &code[at..at + body + braces_len(&code[at + body..])];
            let lines = whole.lines().count();
            let excepted = LONG_FUNCTIONS
                .iter()
                .any(|(file, excepted, _)| file == name && *excepted == function);
            if lines > FUNCTION_LINES_MAX && !excepted {
                writeln!(violations, "{name}:{}: {function} has {lines} lines", line_of(code, at))
                    .unwrap();
            }
        }
    }
    report("what is too long", &violations);
}

/// An exception that nothing needs any more goes.
#[test]
fn exceptions_are_needed() {
    let sources = sources();
    let find = |file: &str| sources.iter().find(|source| source.name == file);
    for (file, module, _) in ARROW_EXCEPTIONS {
        let source = find(file).unwrap_or_else(|| panic!("{file} is gone"));
        let named = named_modules(source);
        assert!(
            named.iter().any(|(_, path)| path[0] == *module),
            "{file} no longer names {module}"
        );
    }
    let long = |source: &Source| source.code.trim_end().lines().count() > FILE_LINES_MAX;
    for (file, _) in LONG_FILES {
        assert!(find(file).is_some_and(long), "{file} is short now");
    }
    for (file, function, _) in LONG_FUNCTIONS {
        let there =
            find(file).is_some_and(|source| source.code.contains(&format!("fn {function}")));
        assert!(there, "{file} no longer has {function}");
    }
}

#[test]
fn the_reader_of_code_reads_right() {
    let text = "let a = \"// no\"; // yes\nlet b = 'x'; fn f<'a>() {} /* c\n */ r#\"\"#;\n";
    assert_eq!(blank(text).split_whitespace().collect::<String>(), "leta=;letb=;fnf<'a>(){};");
    assert_eq!(blank(text).lines().count(), text.lines().count());
    let code = "a;\n#[cfg(test)]\nmod tests { fn x() { {} } }\nb;\n#[cfg(test)]\nmod c;\nd;";
    assert_eq!(cut_tests(code).split_whitespace().collect::<String>(), "a;b;d;");
    let source = |name: &str, code: &str| Source {
        name: name.to_owned(),
        text: String::new(),
        code: code.to_owned(),
    };
    let source =
        source("maintain/keys.rs", "use super::check; crate::repo::init::x; super::super::backup");
    let named: Vec<String> =
        named_modules(&source).iter().map(|(_, path)| path.join("::")).collect();
    assert_eq!(named, ["repo::init", "maintain::check", "backup"]);
}
