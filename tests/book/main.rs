//! README and the book as their readers use them: commands are run, excerpts are compared with their files,
//! programs are compiled, links are followed. The rules are at the end of docs/README.md.
#![cfg(all(feature = "cli", unix))]

mod page;
mod shown;

use page::{Block, Typed, blocks, links, pages, script, typed};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

const BINARY: &str = env!("CARGO_BIN_EXE_atrous");

/// What may be typed beside `atrous`: it changes nothing.
const READERS: [&str; 4] = ["cat", "cmp", "head", "ls"];

/// Folders whose names begin a path of the repository.
const FOLDERS: [&str; 6] = ["benches/", "docs/", "examples/", "kernels/", "src/", "tests/"];

/// A folder that looks like the repository's root, in which `out` can be written to.
fn workplace() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = std::env::current_dir().unwrap();
    for entry in fs::read_dir(&root).unwrap() {
        let name = entry.unwrap().file_name();
        if !["target", "out", ".git"].contains(&name.to_str().unwrap_or_default()) {
            symlink(root.join(&name), folder.path().join(&name)).unwrap();
        }
    }
    folder
}

/// A program and its arguments, with the variables that stand before it.
struct Call {
    variables: Vec<(String, String)>,
    program: PathBuf,
    arguments: Vec<String>,
}

impl Call {
    /// An error for a command of no known kind.
    fn new(line: &str) -> Result<Self, String> {
        let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let is_variable =
            |word: &String| word.split_once('=').is_some_and(|(name, _)| name.starts_with("ATROUS_"));
        let count = words.iter().take_while(|word| is_variable(word)).count();
        let variables = words.drain(..count);
        let variables = variables.filter_map(|word| {
            word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
        });
        let variables = variables.collect();
        let (program, arguments) = program(&words).ok_or_else(|| {
            let readers = READERS.join(", ");
            format!("expected `atrous`, `cargo run --release` or one of {readers}, got `{line}`")
        })?;
        Ok(Call { variables, program, arguments: arguments.to_vec() })
    }

    /// What it prints, both streams in their order; an error unless it ends as expected.
    fn run(&self, folder: &Path, fails: bool) -> Result<String, String> {
        let path = folder.join("printed");
        let file = File::create(&path).unwrap();
        let both = || Stdio::from(file.try_clone().unwrap());
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).envs(self.variables.iter().cloned()).current_dir(folder);
        let status = command.stdin(Stdio::null()).stdout(both()).stderr(both()).status();
        let status = status.map_err(|error| {
            let hint = "examples are made by `cargo build --release --examples`";
            format!("{}: {error} ({hint})", self.program.display())
        })?;
        let mut printed = Vec::new();
        File::open(&path).unwrap().read_to_end(&mut printed).unwrap();
        let printed = String::from_utf8_lossy(&printed).into_owned();
        if status.success() != fails { Ok(printed) } else { Err(format!("{status}:\n{printed}")) }
    }
}

/// The program of a command, and its arguments; None where it is of no known kind.
fn program(words: &[String]) -> Option<(PathBuf, &[String])> {
    let known: Vec<&str> = words.iter().map(String::as_str).collect();
    let (program, count) = match &known[..] {
        ["atrous", ..] => (BINARY.into(), 1),
        ["cargo", "run", "--release", "--", ..] => (BINARY.into(), 4),
        ["cargo", "run", "--release", "--example", name, "--", ..] => (example(name), 6),
        ["cargo", "run", "--release", "--example", name] => (example(name), 5),
        [reader, ..] if READERS.contains(reader) => (reader.into(), 1),
        _ => return None,
    };
    Some((program, &words[count..]))
}

/// Where cargo, which builds examples with tests, puts one of them.
fn example(name: &str) -> PathBuf {
    Path::new(BINARY).with_file_name("examples").join(name)
}

/// Whether the program would take the command's options: it is asked for help after them. Anything that is
/// no command of `atrous` is fine if the repository's files in it are there.
fn is_understood(line: &str) -> Result<(), String> {
    let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    if let Some(pipe) = words.iter().position(|word| ["|", ">", ">>"].contains(&word.as_str())) {
        words.truncate(pipe);
    }
    let missing = words.iter().find(|word| {
        FOLDERS.iter().any(|folder| word.starts_with(folder)) && !Path::new(word.as_str()).exists()
    });
    if let Some(missing) = missing {
        return Err(format!("there is no `{missing}`"));
    }
    let line = words.join(" ").replace("--features emulator -- ", "-- ");
    match Call::new(&line) {
        Ok(mut call) if call.program == Path::new(BINARY) => {
            call.arguments.push("--help".into());
            call.run(tempfile::tempdir().unwrap().path(), false).map(drop)
        }
        _ => Ok(()),
    }
}

/// Runs `check` on all commands; fails with all that it found, a paragraph each.
fn all_hold(commands: &[Typed], mut check: impl FnMut(&Typed) -> Result<(), String>) {
    let found = commands.iter().filter_map(|command| {
        let error = check(command).err()?;
        Some(format!("{}: $ {}\n{error}", command.at, command.line))
    });
    let found: Vec<String> = found.collect();
    assert!(
        found.is_empty(),
        "{} of {} commands:\n\n{}",
        found.len(),
        commands.len(),
        found.join("\n\n")
    );
}

/// The commands of the blocks that `wanted` picks.
fn commands(wanted: impl Fn(&Block) -> bool, of: fn(&Block) -> Vec<Typed>) -> Vec<Typed> {
    blocks().iter().filter(|block| wanted(block)).flat_map(of).collect()
}

#[test]
#[cfg_attr(debug_assertions, ignore = "it trains networks: with --release")]
fn every_command_runs_and_prints_what_stands_under_it() {
    let folder = workplace();
    let all = commands(|block| block.is("console") && !block.is("slow"), typed);
    all_hold(&all, |command| {
        let began = Instant::now();
        let printed = Call::new(&command.line).and_then(|call| call.run(folder.path(), command.fails));
        println!("{:6.2} s  {}  {}", began.elapsed().as_secs_f64(), command.at, command.line);
        match command.shown.is_empty() {
            true => printed.map(drop),
            false => shown::check(&command.shown, &printed?),
        }
    });
}

#[test]
fn commands_that_are_not_run_would_be_understood() {
    let slow = commands(|block| block.is("console") && block.is("slow"), typed);
    slow.iter().for_each(|command| println!("not run: {}  {}", command.at, command.line));
    all_hold(&slow, |command| is_understood(&command.line));
    let scripts = commands(|block| block.is("sh"), script);
    all_hold(&scripts, |command| is_understood(&command.line));
}

#[test]
fn every_excerpt_stands_in_the_file_that_it_names() {
    let all = blocks();
    let excerpts = all.iter().filter(|block| block.is("excerpt"));
    let wrong: Vec<String> = excerpts.filter_map(|block| excerpt(block).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// An error where the block's lines are not its file's, in their order.
fn excerpt(Block { at, lines, .. }: &Block) -> Result<(), String> {
    let (first, lines) = lines.split_first().ok_or_else(|| format!("{at}: it is empty"))?;
    let path = first.trim_start_matches(['/', '#']).trim();
    let text = fs::read_to_string(path).map_err(|error| format!("{at}: `{path}`: {error}"))?;
    let text: Vec<&str> = text.lines().collect();
    // Parts in their order, with something left out between them.
    let mut from = 0;
    for part in lines.split(|line| line.trim() == "…") {
        let found = (from..text.len()).find_map(|start| Some(start + length(&text[start..], part)?));
        from = found.ok_or_else(|| format!("{at}: not in {path}:\n{}", part.join("\n")))?;
    }
    Ok(())
}

/// How many lines it takes to have all lines of a part, which may be less indented by as much, and leave out
/// empty lines, comments and attributes; None where another line comes between.
fn length(lines: &[&str], part: &[String]) -> Option<usize> {
    let mut part = part.iter().filter(|line| !line.is_empty()).peekable();
    let Some(first) = part.peek() else { return Some(0) };
    let indent =
        lines.first()?.strip_suffix(first.as_str()).filter(|indent| indent.trim().is_empty())?;
    for (i, line) in lines.iter().enumerate() {
        let Some(wanted) = part.peek() else { return Some(i) };
        if line.strip_prefix(indent) == Some(wanted) {
            part.next();
        } else if !["//", "#["].iter().any(|aside| line.trim().starts_with(aside)) && !line.is_empty() {
            return None;
        }
    }
    part.peek().is_none().then_some(lines.len())
}

#[test]
fn every_page_with_a_program_is_compiled_by_rustdoc() {
    let library = fs::read_to_string("src/lib.rs").unwrap();
    let programs: BTreeSet<String> = blocks()
        .into_iter()
        .filter(|block| block.is("rust"))
        .filter_map(|block| Some(block.at.split(':').next()?.to_owned()))
        .collect();
    // README's program is an example, which tests/examples.rs compares.
    for page in programs.iter().filter(|page| *page != "README.md") {
        let name = page.trim_start_matches("docs/");
        assert!(
            library.contains(&format!("\"{name}\"")),
            "{page} is not among the book's in src/lib.rs"
        );
    }
    let all = blocks();
    let compiled = all.iter().find(|block| block.is("rust") && block.is("excerpt"));
    let at = compiled.map(|block| &block.at);
    assert_eq!(at, None, "rustdoc would compile it: the mark is `rs,excerpt`");
}

#[test]
fn every_link_leads_somewhere_and_the_summary_to_every_chapter() {
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in links(&text).iter().filter(|link| !link.is_empty()) {
            let target = page.parent().unwrap().join(link);
            assert!(target.exists(), "{}: `{link}` leads nowhere", page.display());
        }
    }
    let summary = fs::read_to_string("docs/SUMMARY.md").unwrap();
    let listed: BTreeSet<String> = links(&summary).into_iter().collect();
    let names =
        pages().into_iter().skip(1).map(|page| page.file_name().unwrap().to_str().unwrap().to_owned());
    let chapters: BTreeSet<String> = names.filter(|name| name != "SUMMARY.md").collect();
    assert_eq!(listed, chapters);
}
