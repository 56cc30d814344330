//! Laws of the code itself that no compiler checks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use peergate::local::platform_table::platform_table;

use crate::support::contract::project_file;

/// Code that must serve any platform: the stories, the parts around them, and the local tool.
const NAMELESS: [&str; 15] = [
    "webhook.rs",
    "webhook",
    "watch.rs",
    "watch",
    "accept.rs",
    "app.rs",
    "config.rs",
    "config",
    "secrets.rs",
    "doctor.rs",
    "doctor",
    "bin",
    "local/event.rs",
    "local/register.rs",
    "local/serve.rs",
];
const PLATFORMS: [&str; 8] =
    ["slack", "feishu", "lark", "standard_webhooks", "standard webhooks", "teams", "botframework", "dingtalk"];

fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = std::fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    entries.flat_map(|entry| files(&entry.unwrap().path())).collect()
}

#[test]
fn only_the_platform_folders_and_list_name_a_platform() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut looked_at = 0;
    for file in NAMELESS.iter().flat_map(|path| files(&source.join(path))) {
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap().to_lowercase();
        for (number, line) in code.lines().enumerate() {
            let named = PLATFORMS.iter().find(|name| line.contains(**name));
            assert_eq!(named, None, "{}:{}: {line}", file.display(), number + 1);
            looked_at += 1;
        }
    }
    assert!(looked_at > 3000, "{looked_at}");
}

/// The modules of `src`, from the lowest layer to the highest. A module imports from its own layer and from lower ones.
const LAYERS: [(&str, &[&str]); 7] = [
    ("domain", &["approval", "from_text", "peering", "policy", "preflight"]),
    (
        "basics",
        &[
            "aws",
            "clock",
            "document",
            "envelope",
            "http",
            "logging",
            "metrics",
            "notes",
            "read_budget",
            "redaction",
            "secret",
            "used_cidrs",
        ],
    ),
    ("vendor and platforms", &["alicloud", "chat"]),
    ("configuration and AWS", &["config", "credentials", "secrets", "store"]),
    ("procedure", &["accept", "app"]),
    ("stories", &["doctor", "trigger", "watch", "webhook"]),
    ("laptop", &["fake", "local"]),
];

/// Names that each platform's folder has, and names that every module may have.
const SHARED_TYPE_NAMES: [&str; 8] =
    ["Error", "Config", "Secrets", "Channel", "ReplyTo", "State", "PlatformContext", "UnverifiedRequest"];
const MAX_FUNCTION_LINES: usize = 63;

const MAX_FILE_LINES: usize = 500;

/// A file of Rust in `src` without its tests and its comments.
struct Source {
    /// e.g. `chat/slack.rs`.
    path: String,
    /// e.g. `["chat", "slack"]`.
    module: Vec<String>,
    lines: Vec<String>,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let read = |file: &PathBuf| {
        let path = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(file).unwrap();
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
        let code = code.lines().map(|line| line.split("//").next().filter(|_| !line.contains("://")).unwrap_or(line));
        let module = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        Source { path, module, lines: code.map(str::to_owned).collect() }
    };
    let is_rust = |file: &&PathBuf| file.extension().is_some_and(|extension| extension == "rs");
    let sources: Vec<_> = files(&root).iter().filter(is_rust).map(read).collect();
    assert!(sources.len() > 80, "{}", sources.len());
    sources
}

/// An import between two modules, as the parent that both are in sees it.
struct Import {
    parent: String,
    from: String,
    to: String,
    /// The file, and what it imports.
    seen: String,
}

/// Every path of the code that begins with `crate` or `super` and leads into another module. What a module takes from its
/// own parents and children is left out.
fn imports() -> Vec<Import> {
    let sources = sources();
    let modules: BTreeSet<&[String]> = sources.iter().map(|source| source.module.as_slice()).collect();
    let mut imports = vec![];
    for source in sources.iter().filter(|source| source.module[0] != "bin") {
        for path in paths(&source.lines.join("\n")) {
            let supers = path.iter().take_while(|name| **name == "super").count();
            let known = if supers == 0 { 0 } else { source.module.len().saturating_sub(supers) };
            let absolute = source.module[..known].iter().cloned();
            let mut target: Vec<_> =
                absolute.chain(path.iter().skip(supers.max(1)).map(|name| (*name).to_owned())).collect();
            while !target.is_empty() && !modules.contains(target.as_slice()) {
                target.pop();
            }
            let shared = source.module.iter().zip(&target).take_while(|(one, other)| one == other).count();
            if let (Some(from), Some(to)) = (source.module.get(shared), target.get(shared)) {
                imports.push(Import {
                    parent: target[..shared].join("::"),
                    from: from.clone(),
                    to: to.clone(),
                    seen: format!("src/{} imports {}", source.path, path.join("::")),
                });
            }
        }
    }
    assert!(imports.len() > 300, "{}", imports.len());
    imports
}

/// The paths that begin with `crate` or `super`; a group in braces is several.
fn paths(code: &str) -> Vec<Vec<&str>> {
    let mut tokens = vec![];
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(rest.len());
        let length = if rest.starts_with("::") { 2 } else { word.max(first.len_utf8()) };
        let (token, left) = rest.split_at(length);
        if !token.trim().is_empty() {
            tokens.push(token);
        }
        rest = left;
    }
    let (mut found, mut at) = (vec![], 0);
    while at < tokens.len() {
        let begins = ["crate", "super"].contains(&tokens[at]) && tokens.get(at + 1) == Some(&"::");
        if begins {
            found.extend(read_paths(&tokens, &mut at));
        } else {
            at += 1;
        }
    }
    found
}

fn read_paths<'a>(tokens: &[&'a str], at: &mut usize) -> Vec<Vec<&'a str>> {
    let Some(first) = tokens.get(*at).copied() else { return vec![vec![]] };
    *at += 1;
    if first == "{" {
        let mut paths = vec![];
        while let Some(token) = tokens.get(*at).filter(|token| **token != "}") {
            match *token {
                "," => *at += 1,
                "as" => *at += 2,
                _ => paths.extend(read_paths(tokens, at)),
            }
        }
        *at += 1;
        return paths;
    }
    if tokens.get(*at) != Some(&"::") {
        return vec![vec![first]];
    }
    *at += 1;
    read_paths(tokens, at).into_iter().map(|rest| [vec![first], rest].concat()).collect()
}

#[test]
fn paths_in_groups_are_read_one_by_one() {
    let code = "use crate::{a::{B, c as d}, e}; let x = super::super::f::<G>();";
    assert_eq!(
        paths(code),
        [vec!["crate", "a", "B"], vec!["crate", "a", "c"], vec!["crate", "e"], vec!["super", "super", "f", "<"]]
    );
}

#[test]
fn modules_import_each_other_in_no_circle() {
    let mut by_parent = BTreeMap::<String, Vec<Import>>::new();
    for import in imports() {
        by_parent.entry(import.parent.clone()).or_default().push(import);
    }
    for (parent, mut imports) in by_parent {
        // What is in no circle has, sooner or later, nothing that it imports or nothing that imports it.
        loop {
            let before = imports.len();
            let from: BTreeSet<_> = imports.iter().map(|import| import.from.clone()).collect();
            let to: BTreeSet<_> = imports.iter().map(|import| import.to.clone()).collect();
            imports.retain(|import| from.contains(&import.to) && to.contains(&import.from));
            if imports.len() == before {
                break;
            }
        }
        let circle: Vec<_> = imports.iter().map(|it| format!("{} -> {}: {}", it.from, it.to, it.seen)).collect();
        assert!(
            circle.is_empty(),
            "modules of src/{parent} import each other in a circle: move what both need into a module below them\n{}",
            circle.join("\n")
        );
    }
}

#[test]
fn module_imports_nothing_from_a_layer_above_it() {
    let layer = |module: &str| {
        LAYERS
            .iter()
            .position(|(_, modules)| modules.contains(&module))
            .unwrap_or_else(|| panic!("src/{module} has no layer: add it to LAYERS, as early as its imports allow"))
    };
    for source in sources().iter().filter(|source| !["bin", "lib"].contains(&source.module[0].as_str())) {
        layer(&source.module[0]);
    }
    for import in imports().iter().filter(|import| import.parent.is_empty()) {
        let (from, to) = (layer(&import.from), layer(&import.to));
        assert!(
            to <= from,
            "{}: {} ({}) is above {} ({}): hand it over as data, or move what both need down",
            import.seen,
            import.to,
            LAYERS[to].0,
            import.from,
            LAYERS[from].0
        );
    }
}

#[test]
fn type_name_means_one_thing() {
    let mut declared = BTreeMap::<String, Vec<String>>::new();
    for source in sources() {
        for line in &source.lines {
            let line = line.strip_prefix("pub").map_or(line.as_str(), |rest| {
                rest.strip_prefix('(')
                    .and_then(|rest| rest.split_once(") "))
                    .map_or(rest.trim_start(), |(_, rest)| rest)
            });
            let kinds = ["struct ", "enum ", "trait ", "type ", "union "];
            let Some(rest) = kinds.iter().find_map(|kind| line.strip_prefix(kind)) else { continue };
            let name = rest.split(|letter: char| !letter.is_alphanumeric()).next().unwrap();
            declared.entry(name.to_owned()).or_default().push(source.path.clone());
        }
    }
    assert!(declared.len() > 200, "{}", declared.len());
    for (name, files) in declared {
        let excepted = SHARED_TYPE_NAMES.contains(&name.as_str());
        assert!(files.len() == 1 || excepted, "{name} means several things: rename all but one in {files:?}");
    }
}

#[test]
fn readme_shows_what_each_platform_can_do() {
    let (readme, table) = (project_file("README.md"), platform_table());
    assert!(
        readme.contains(&table),
        "the table in README.md is not that of the code; `peergate platforms` prints:\n{table}"
    );
}

#[test]
fn functions_are_short() {
    let mut looked_at = 0;
    for source in sources() {
        for (position, line) in source.lines.iter().enumerate() {
            let declaration = line.trim_start();
            let indent = line.len() - declaration.len();
            let before_name = declaration.split("fn ").next().unwrap();
            let is_function = declaration.contains("fn ")
                && before_name.split_whitespace().all(|word| {
                    word.starts_with("pub") || ["const", "async", "in", "crate)", "super)"].contains(&word)
                });
            if !is_function {
                continue;
            }
            let name = declaration[before_name.len() + 3..].split(['(', '<']).next().unwrap();
            let end = format!("{}}}", " ".repeat(indent));
            let length = source.lines[position..].iter().position(|line| *line == end).map_or(1, |last| last + 1);
            assert!(
                length <= MAX_FUNCTION_LINES,
                "src/{}: {name} has {length} lines, and {MAX_FUNCTION_LINES} are the most: move a part of it into a function with a name",
                source.path
            );
            looked_at += 1;
        }
    }
    assert!(looked_at > 1000, "{looked_at}");
}

#[test]
fn files_are_short_above_their_tests() {
    for source in sources() {
        let (path, length) = (source.path.as_str(), source.lines.len());
        assert!(
            length <= MAX_FILE_LINES,
            "src/{path} has {length} lines above its tests, and {MAX_FILE_LINES} are the most: give a subject a file of its own"
        );
    }
}

#[test]
fn test_names_are_unique_and_short() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = BTreeSet::new();
    for file in ["src", "tests"].iter().flat_map(|folder| files(&root.join(folder))) {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        for (position, _) in lines
            .iter()
            .enumerate()
            .filter(|(_, line)| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
        {
            let declaration = lines[position..].iter().find_map(|line| line.split_once("fn ")).unwrap().1;
            let name = declaration.split('(').next().unwrap().to_owned();
            // The name of a macro's parameter.
            if name.starts_with('$') {
                continue;
            }
            assert!(name.len() <= 60, "{}: {name} has more than 60 letters", file.display());
            assert!(
                !["a_", "an_", "the_"].iter().any(|article| name.starts_with(article)),
                "{}: {name} begins with an article: begin with the subject",
                file.display()
            );
            assert!(names.insert(name.clone()), "{}: {name} is the name of another test, too", file.display());
        }
    }
    assert!(names.len() > 400, "{}", names.len());
}
