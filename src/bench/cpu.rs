//! The processor that times are of, as the system describes it.

use serde::Serialize;
use std::fmt;
use std::fs::read_to_string;

/// A processor's name, cores and frequency, where the system tells them (Linux).
///
/// ```
/// use atrous::bench::Cpu;
///
/// let json = serde_json::to_value(Cpu::now()).unwrap(); // what the lines of a benchmark begin with
/// assert!(json.is_object());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// `AMD EPYC`
    pub model: Option<String>,
    /// Cores that this process may run on.
    pub cores: usize,
    /// Of the fastest core, when it was asked for.
    pub mhz: Option<f64>,
}

impl Cpu {
    /// Asks the system now: a frequency changes with what there is to do.
    pub fn now() -> Self {
        let info = read_to_string("/proc/cpuinfo").unwrap_or_default();
        Cpu {
            model: values(&info, "model name").next().map(str::to_string),
            cores: std::thread::available_parallelism().map_or(1, |n| n.get()),
            mhz: scaled().or_else(|| largest(values(&info, "cpu MHz"))),
        }
    }
}

/// The kernel's own measurement, where there is one: kHz of each core.
fn scaled() -> Option<f64> {
    let of_core = |core: usize| {
        let path = format!("/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq");
        read_to_string(path).ok()
    };
    let texts: Vec<String> = (0..).map_while(of_core).collect();
    largest(texts.iter().map(|text| text.trim())).map(|khz| khz / 1e3)
}

fn largest<'a>(numbers: impl Iterator<Item = &'a str>) -> Option<f64> {
    numbers.filter_map(|text| text.parse().ok()).filter(|n: &f64| *n > 0.0).reduce(f64::max)
}

/// The values of all lines `key : value`.
fn values<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.filter(move |(name, _)| name.trim() == key).map(|(_, value)| value.trim())
}

/// `2 cores of AMD EPYC at 2.60 GHz`
impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} core{}", self.cores, if self.cores == 1 { "" } else { "s" })?;
        self.model.iter().try_for_each(|model| write!(f, " of {model}"))?;
        self.mhz.iter().try_for_each(|mhz| write!(f, " at {:.2} GHz", mhz / 1e3))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_is_read_from_the_system_s_text_and_said_in_words() {
        let core = |mhz: &str| format!("model name\t: AMD EPYC\ncpu MHz\t\t: {mhz}\n\n");
        let text = &(core("2596.1") + &core("3100.5"));
        assert_eq!(values(text, "model name").count(), 2);
        assert_eq!(largest(values(text, "cpu MHz")), Some(3100.5));
        assert_eq!(largest(["", "x", "0"].into_iter()), None);
        let cpu = Cpu { model: Some("AMD EPYC".into()), cores: 2, mhz: Some(2596.1) };
        assert_eq!(cpu.to_string(), "2 cores of AMD EPYC at 2.60 GHz");
        assert_eq!(Cpu { cores: 1, ..Cpu::default() }.to_string(), "1 core");
        assert!(Cpu::now().cores > 0);
    }
}
