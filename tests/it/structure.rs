//! Laws of the code itself that no compiler checks.

use std::path::{Path, PathBuf};

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
const PLATFORMS: [&str; 5] = ["slack", "feishu", "lark", "standard_webhooks", "standard webhooks"];

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
