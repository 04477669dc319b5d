//! What other programs put into PyTorch's names: `module.` (data parallel), `_orig_mod.` (compiled), and
//! whatever a network is called that is a part of another, `model.`, `backbone.`, `encoder.net.`.

use crate::error::printable;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// Parts of a name that wrappers add wherever they stand, and that no network here has.
const ANYWHERE: [&str; 4] =
    ["module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];

/// The part of a file's names in front of the modules that the network has.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wrapping {
    /// With its dots, and without the parts that may be anywhere.
    prefix: String,
}

impl Wrapping {
    /// The prefix under which a file has at least half of a network's modules. None is needed where the
    /// names fit as they are. An error where there are several: that file has several networks.
    pub fn of<'n, 'm>(
        names: impl Iterator<Item = &'n str>,
        modules: impl Iterator<Item = &'m str>,
    ) -> Result<Self, String> {
        let modules: HashSet<&str> = modules.collect();
        let mut found: HashMap<String, HashSet<&str>> = HashMap::new();
        for name in names.filter(|name| !name.contains('/')) {
            let bare = without_wrappers(name);
            let Some((module, _)) = bare.rsplit_once('.') else { continue };
            for start in std::iter::once(0).chain(module.match_indices('.').map(|(dot, _)| dot + 1)) {
                if let Some(module) = modules.get(&module[start..]) {
                    found.entry(bare[..start].to_owned()).or_default().insert(module);
                }
            }
        }
        found.retain(|_, there| 2 * there.len() >= modules.len());
        let mut prefixes: Vec<String> = found.into_keys().collect();
        prefixes.sort();
        match &prefixes[..] {
            [first, ..] if first.is_empty() => Ok(Wrapping::default()),
            [first, second, ..] => Err(format!(
                "expected one network, got several: `{}` and `{}` both begin the names of one; keep the \
                 tensors of one in a file of its own",
                printable(first),
                printable(second)
            )),
            _ => Ok(Wrapping { prefix: prefixes.pop().unwrap_or_default() }),
        }
    }

    /// A name as the network's own framework would write it.
    pub fn bare<'a>(&self, name: &'a str) -> Cow<'a, str> {
        if name.contains('/') {
            return Cow::Borrowed(name);
        }
        let bare = without_wrappers(name);
        match bare.strip_prefix(&self.prefix) {
            Some(rest) if !self.prefix.is_empty() => Cow::Owned(rest.to_owned()),
            _ => bare,
        }
    }

    /// What [`Self::bare`] takes off a name, or nothing.
    pub fn taken_off(&self, name: &str) -> String {
        match name.strip_suffix(&*self.bare(name)) {
            Some(front) => front.to_owned(),
            // Not in front alone.
            None => {
                let parts = name.split('.').filter(|part| ANYWHERE.contains(part));
                self.prefix.clone() + &parts.map(|part| format!("{part}.")).collect::<String>()
            }
        }
    }
}

fn without_wrappers(name: &str) -> Cow<'_, str> {
    let wraps = |part: &&str| ANYWHERE.contains(part);
    match name.split('.').any(|part| wraps(&part)) {
        true => Cow::Owned(name.split('.').filter(|part| !wraps(part)).collect::<Vec<_>>().join(".")),
        false => Cow::Borrowed(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULES: [&str; 3] = ["features.0.0", "features.0.1", "classifier.1"];

    fn wrapping(names: &[&'static str]) -> Result<Wrapping, String> {
        Wrapping::of(names.iter().copied(), MODULES.into_iter())
    }

    /// What a name becomes, in a file where all are wrapped so.
    fn bare(prefix: &str) -> String {
        let names: Vec<String> = MODULES.iter().map(|m| format!("{prefix}{m}.weight")).collect();
        let wrapping = Wrapping::of(names.iter().map(String::as_str), MODULES.into_iter()).unwrap();
        assert_eq!(wrapping.taken_off(&names[0]), prefix);
        wrapping.bare(&names[0]).into_owned()
    }

    #[test]
    fn every_prefix_comes_off_alone_and_nested() {
        for prefix in [
            "",
            "module.",
            "model.",
            "backbone.",
            "_orig_mod.",
            "module._orig_mod.",
            "_orig_mod.module.",
            "model._orig_mod.module.backbone.",
            "state_dict.encoder.net.",
            "features.",
        ] {
            assert_eq!(bare(prefix), "features.0.0.weight", "{prefix}");
        }
    }

    #[test]
    fn wrappers_within_a_name_come_off_too() {
        let names = ["features.module.0.0.weight", "features.module.0.1.weight"];
        let wrapping = wrapping(&names).unwrap();
        assert_eq!(wrapping.bare(names[0]), "features.0.0.weight");
        assert_eq!(wrapping.taken_off(names[0]), "module.");
    }

    #[test]
    fn a_prefix_of_the_base_alone_comes_off_and_other_parts_keep_their_names() {
        let names = ["backbone.features.0.0.weight", "backbone.features.0.1.bias", "decoder.0.weight"];
        let wrapping = wrapping(&names).unwrap();
        assert_eq!(wrapping.bare(names[1]), "features.0.1.bias");
        assert_eq!(wrapping.bare(names[2]), "decoder.0.weight");
        assert_eq!(wrapping.taken_off(names[2]), "");
    }

    #[test]
    fn names_that_fit_as_they_are_stay_and_two_networks_are_not_guessed_between() {
        let plain = ["features.0.0.weight", "features.0.1.bias"];
        let copies = ["ema.features.0.0.weight", "ema.features.0.1.bias"];
        assert_eq!(wrapping(&[plain, copies].concat()), Ok(Wrapping::default()));
        let teacher = ["teacher.features.0.0.weight", "teacher.features.0.1.bias"];
        let error = wrapping(&[teacher, copies].concat()).unwrap_err();
        assert!(error.contains("`ema.` and `teacher.`"), "{error}");
        assert_eq!(wrapping(&["a.features.0.0.weight"]), Ok(Wrapping::default()));
        assert_eq!(wrapping(&[]), Ok(Wrapping::default()));
        assert_eq!(Wrapping::default().bare("model/conv1/kernel"), "model/conv1/kernel");
    }
}
