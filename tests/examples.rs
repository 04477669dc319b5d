//! The examples, as the README shows them.

use std::fs;
use std::path::PathBuf;

fn examples() -> Vec<PathBuf> {
    let all = fs::read_dir("examples").unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<PathBuf> = all.filter(|path| path.is_file()).collect();
    all.sort();
    all
}

#[test]
fn each_has_less_than_80_lines_and_a_line_of_the_readme() {
    let readme = fs::read_to_string("README.md").unwrap();
    let all = examples();
    assert_eq!(all.len(), 7);
    for path in all {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines < 80, "{name}: {lines} lines");
        assert!(readme.contains(&format!("[{name}](examples/{name}.rs)")), "{name}");
    }
}

#[test]
fn the_readme_s_program_is_the_one_that_runs() {
    let readme = fs::read_to_string("README.md").unwrap();
    let xor = fs::read_to_string("examples/03_xor.rs").unwrap();
    let (_, program) = xor.split_once("\n\n").unwrap();
    assert!(readme.contains(&format!("```rust\n{program}```")));
}
