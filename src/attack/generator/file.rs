//! A generator on disk: one `.safetensors` file with its weights under their paths, and with what is
//! needed to apply it as one JSON text, the metadata `atrous_generator`.

use super::{About, Generator};
use crate::attack::ball::EpsBall;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::models::{LARGEST_SIDE, attack_generator};
use crate::nn::Model;
use crate::tensor::Tensor;
use crate::weights::{regular, safetensors};
use ::safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use std::path::Path;

const KEY: &str = "atrous_generator";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    side: usize,
    /// From 0 to 1. No number of JSON is NaN: that comes back as null, and null is no number.
    epsilon: f32,
    steps: u64,
    #[serde(flatten)]
    about: About,
}

impl Generator {
    /// Writes the file: complete, or not at all. An error for a network that is not
    /// [`attack_generator`]'s, which could not be built again, and for weights that are not finite.
    ///
    /// ```
    /// use atrous::attack::generator::{About, Generator};
    /// use atrous::attack::{EpsBall, Images};
    /// use atrous::data::image::Fit;
    /// use atrous::prelude::*;
    ///
    /// let about = About { fit: Fit::Pad, victim: "mobilenet".into(), goal: "untargeted".into() };
    /// let generator = Generator::new(8, EpsBall::linf(0.1), about, 1)?;
    ///
    /// let folder = tempfile::tempdir()?;
    /// let path = folder.path().join("generator.safetensors");
    /// generator.save(&path)?;
    /// let again = Generator::load(&path)?;
    /// assert_eq!((&again.about, again.ball()), (&generator.about, generator.ball()));
    /// let paths = |model: Model| model.parameters.into_iter().map(|p| (p.path, p.value.to_vec_f64()));
    /// assert!(paths(again.model).eq(paths(generator.model)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let broken = |message: String| Error::file(path, format!("cannot be written: {message}"));
        self.ball.check()?;
        let model = self.model.to_device(Device::Cpu)?;
        let paths = |model: &Model| -> Vec<String> {
            model.parameters.iter().map(|p| format!("{} {}", p.path, p.value.shape())).collect()
        };
        if paths(&model) != paths(&Model::new(attack_generator(self.side())?, 0)) {
            return Err(broken(format!("`{}` is a network of one's own", model.graph.name)));
        }
        for parameter in &model.parameters {
            finite(&parameter.path, &parameter.value).map_err(broken)?;
        }
        let saved = Saved {
            version: VERSION,
            side: self.side(),
            epsilon: self.ball.epsilon,
            steps: self.steps,
            about: self.about.clone(),
        };
        let text = serde_json::to_string(&saved).map_err(|error| broken(error.to_string()))?;
        let arrays: Vec<(String, Tensor)> =
            model.parameters.into_iter().map(|parameter| (parameter.path, parameter.value)).collect();
        safetensors::write(path, &arrays, KEY, text)
    }

    /// Reads what [`Generator::save`] wrote. An error where the file cannot be read, is of another version
    /// or holds weights of other shapes or that are not finite.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = regular::read(path)?;
        Self::parse(&bytes)
            .map_err(|message| Error::file(path, format!("not a usable generator: {message}")))
    }

    /// [`Generator::load`] from memory; the error is without the path.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let arrays = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
        let text = safetensors::text(bytes, KEY)?;
        let text = text.ok_or_else(|| format!("it has no `{KEY}` metadata, so it is none"))?;
        let saved: Saved = serde_json::from_str(&text).map_err(|error| format!("metadata: {error}"))?;
        if saved.version != VERSION {
            return Err(format!("it has version {}, this program reads {VERSION}", saved.version));
        }
        if saved.side > LARGEST_SIDE {
            return Err(format!("expected a side of at most {LARGEST_SIDE}, got {}", saved.side));
        }
        let graph = attack_generator(saved.side).map_err(|error| error.to_string())?;
        let mut problem = None;
        let model = Model::with(graph, |path, shape, _| match tensor(&arrays, path, &shape) {
            Ok(tensor) => tensor,
            Err(message) => {
                problem.get_or_insert(message);
                Tensor::zeros([0])
            }
        });
        match problem {
            Some(message) => Err(message),
            None => {
                let generator = Generator::of(model, EpsBall::linf(saved.epsilon), saved.about);
                let generator = generator.map_err(|error| error.to_string())?;
                Ok(Generator { steps: saved.steps, ..generator })
            }
        }
    }
}

fn tensor(arrays: &SafeTensors, name: &str, shape: &[usize]) -> Result<Tensor, String> {
    let tensor = safetensors::f32_tensor(arrays, name, shape)?;
    finite(name, &tensor)?;
    Ok(tensor)
}

fn finite(name: &str, tensor: &Tensor) -> Result<(), String> {
    match tensor.to_vec_f64().iter().all(|v| v.is_finite()) {
        true => Ok(()),
        false => Err(format!("`{name}` holds numbers that are not finite")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::generator::tests::{ABOUT, images};

    fn generator() -> Generator {
        let generator = Generator::new(21, EpsBall::linf(8.0 / 255.0), ABOUT.into(), 3).unwrap();
        Generator { steps: 7, ..generator }
    }

    /// The file of a generator, with the header's text changed.
    fn file(old: &str, new: &str) -> Result<Generator, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.safetensors");
        generator().save(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header = std::str::from_utf8(&bytes[8..8 + length]).unwrap();
        assert!(header.contains(old), "{header}");
        let mut header = header.replace(old, new).trim_end().to_string();
        header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
        let mut changed = (header.len() as u64).to_le_bytes().to_vec();
        changed.extend(header.as_bytes());
        changed.extend(&bytes[8 + length..]);
        Generator::parse(&changed)
    }

    #[test]
    fn what_is_saved_and_loaded_does_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.safetensors");
        let before = generator();
        before.save(&path).unwrap();
        let after = Generator::load(&path).unwrap();
        assert_eq!((after.side(), after.ball(), after.steps), (21, before.ball(), 7));
        assert_eq!(after.about, before.about);
        let images = images(21, 2);
        let of = |generator: &Generator| generator.perturb(&images).unwrap().values::<f32>().to_vec();
        assert_eq!(of(&before), of(&after));
        // The same generator makes the same file.
        let bytes = std::fs::read(&path).unwrap();
        after.save(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }

    #[test]
    fn files_that_are_no_generator_say_so() {
        let refused = |old: &str, new: &str| file(old, new).err().unwrap();
        assert!(file("dog", "cat").is_ok());
        let error = refused("atrous_generator", "other");
        assert!(error.contains("no `atrous_generator` metadata"), "{error}");
        let epsilon = format!("{}", 8.0f32 / 255.0);
        for bad in ["null", "1e99", "-0.1", "\\\"NaN\\\"", "NaN"] {
            refused(&epsilon, bad);
        }
        assert!(refused(&epsilon, "-0.1").contains("at least 0, got -0.1"));
        assert!(refused("version\\\":1", "version\\\":9").contains("version 9"));
        assert!(refused("side\\\":21", "side\\\":7").contains("at least 8 pixels a side, got 7"));
        assert!(refused("side\\\":21", "side\\\":99999").contains("at most 4096"));
        // 21 is 3 short of 24; 24 itself needs a smaller last kernel.
        assert!(refused("side\\\":21", "side\\\":24").contains("should be F32 [3, 3,"));
        assert!(refused("conv2d_1/bias", "conv2d_x/bias").contains("`conv2d_1/bias` is missing"));
    }

    #[test]
    fn a_file_that_is_cut_short_or_damaged_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.safetensors");
        generator().save(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for length in [0, 5, 100, bytes.len() / 2, bytes.len() - 1] {
            assert!(Generator::parse(&bytes[..length]).is_err(), "{length}");
        }
        let mut nan = bytes.clone();
        let end = nan.len();
        nan[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        assert!(Generator::parse(&nan).err().unwrap().contains("not finite"));
        std::fs::write(&path, &bytes[..100]).unwrap();
        let error = Generator::load(&path).err().unwrap().to_string();
        assert!(error.contains("g.safetensors: not a usable generator"), "{error}");
        assert!(
            Generator::load(folder.path().join("none")).err().unwrap().to_string().contains("no such")
        );
    }

    #[test]
    fn what_cannot_be_loaded_is_not_saved() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.safetensors");
        let mut broken = generator();
        let bias = broken.model.parameter("conv2d/bias").unwrap().value.shape();
        broken.model.set("conv2d/bias", Tensor::full(bias, f32::INFINITY)).unwrap();
        assert!(broken.save(&path).unwrap_err().to_string().contains("not finite"));
        assert!(!path.exists());
    }
}
