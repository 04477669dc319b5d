//! What a page of Markdown has for its reader to try: blocks, the commands in them, links.

use std::fs;
use std::path::PathBuf;

/// A block between fences.
pub struct Block {
    /// `docs/12-training.md:40`, for messages.
    pub at: String,
    /// What stands behind the opening fence, cut at commas.
    pub tags: Vec<String>,
    pub lines: Vec<String>,
}

impl Block {
    pub fn is(&self, tag: &str) -> bool {
        self.tags.iter().any(|other| other == tag)
    }
}

/// A line to type, and what stands under it.
pub struct Typed {
    pub at: String,
    /// As it is typed, on one line, without the prompt.
    pub line: String,
    /// The lines of output that the page shows; none where it shows none.
    pub shown: Vec<String>,
    /// Whether it is to end with an error: the block is marked `fails`.
    pub fails: bool,
}

/// README and the book, in reading order.
pub fn pages() -> Vec<PathBuf> {
    let docs = fs::read_dir("docs").unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<PathBuf> =
        docs.filter(|path| path.extension().is_some_and(|e| e == "md")).collect();
    pages.sort();
    pages.insert(0, "README.md".into());
    pages
}

/// The blocks of all pages.
pub fn blocks() -> Vec<Block> {
    let of = |path: PathBuf| blocks_of(&path.display().to_string(), &fs::read_to_string(path).unwrap());
    pages().into_iter().flat_map(of).collect()
}

/// The blocks of a text.
pub fn blocks_of(name: &str, text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in (1..).zip(text.lines()) {
        match (line.strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(info), None) => {
                let tags = info.split(',').map(|tag| tag.trim().to_owned()).collect();
                open = Some(Block { at: format!("{name}:{number}"), tags, lines: Vec::new() });
            }
            (None, Some(block)) => block.lines.push(line.to_owned()),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{}: the block has no end", open.unwrap().at);
    blocks
}

/// The lines of a block that begin with `$ `, each with the output under it.
pub fn typed(block: &Block) -> Vec<Typed> {
    let mut all: Vec<Typed> = Vec::new();
    let mut continued = false;
    for line in &block.lines {
        match (line.strip_prefix("$ "), all.last_mut()) {
            (Some(line), _) => all.push(command(block, line)),
            (None, Some(last)) if continued => last.line += line.trim_start(),
            (None, Some(last)) => last.shown.push(line.clone()),
            (None, None) => panic!("{}: expected `$ ` before a command, got `{line}`", block.at),
        }
        let last = all.last_mut().expect("there is one by now");
        continued = last.shown.is_empty() && last.line.ends_with('\\');
        if continued {
            last.line.pop();
        }
    }
    all
}

/// The commands of a shell script, a line each, without comments: a block of `sh`.
pub fn script(block: &Block) -> Vec<Typed> {
    let text = block.lines.join("\n").replace("\\\n", " ");
    let lines = text.lines().map(|line| line.split(" # ").next().unwrap_or_default().trim());
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| command(block, line)).collect()
}

fn command(block: &Block, line: &str) -> Typed {
    Typed { at: block.at.clone(), line: line.to_owned(), shown: Vec::new(), fails: block.is("fails") }
}

/// Where the page's links lead that are no addresses: paths beside it.
pub fn links(text: &str) -> Vec<String> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let here = targets.filter(|target| !target.contains("://") && !target.starts_with('#'));
    here.map(|target| target.split('#').next().unwrap_or_default().to_owned()).collect()
}
