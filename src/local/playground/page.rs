//! The files of the page, compiled in.

/// A file of the page.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageFile {
    /// Its path below the page.
    pub(super) path: &'static str,
    pub(super) content_type: &'static str,
    pub(super) text: &'static str,
}

macro_rules! page_files {
    ($($path:literal: $kind:literal,)+) => {
        const FILES: &[PageFile] = &[$(
            PageFile { path: $path, content_type: $kind, text: include_str!(concat!("page/", $path)) },
        )+];
    };
}

page_files! {
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "main.js": "text/javascript; charset=utf-8",
    "dom.js": "text/javascript; charset=utf-8",
    "server.js": "text/javascript; charset=utf-8",
    "chat.js": "text/javascript; charset=utf-8",
    "why.js": "text/javascript; charset=utf-8",
    "time.js": "text/javascript; charset=utf-8",
    "scenarios.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "cards/cards.css": "text/css; charset=utf-8",
    "cards/dom.js": "text/javascript; charset=utf-8",
    "cards/slack.js": "text/javascript; charset=utf-8",
    "cards/feishu.js": "text/javascript; charset=utf-8",
    "cards/teams.js": "text/javascript; charset=utf-8",
    "cards/dingtalk.js": "text/javascript; charset=utf-8",
}

/// The file with this path. The page itself has an empty one.
pub(super) fn find_file(path: &str) -> Option<PageFile> {
    let path = if path.is_empty() { "index.html" } else { path };
    FILES.iter().find(|file| file.path == path).copied()
}
