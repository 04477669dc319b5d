//! `atrous bench accuracy`

use super::{Bench, says};
use atrous::bench::Peers;
use atrous::bench::accuracy::{Comparison, comparisons, times_larger};
use atrous::{Device, Result};

/// A result, and the gradients by the first, second and third input: of a convolution pictures, kernel
/// and bias, of batch norm x, γ and β.
const COLUMNS: [&str; 4] = ["forward", "d input", "d kernel", "d bias"];

impl Bench {
    pub fn accuracy(&self, device: Device, peers: Option<&Peers>) -> Result<()> {
        let all = self.named("compared operator", comparisons(), |one| one.name())?;
        println!("rms error of f32 results, relative to the rms of the f64 reference's");
        print!("{:<60}", "");
        COLUMNS.iter().for_each(|title| print!("{title:>12}"));
        if peers.is_some() {
            COLUMNS.iter().for_each(|title| print!("{:>12}", format!("× {title}")));
        }
        println!();
        let (mut compared, mut worst) = (0, (0.0, String::new()));
        for one in all {
            says(&format!("f64 reference of {} …", one.name()));
            let line = one.measure(device)?;
            says("");
            self.keep(&line)?;
            let keys = keys(&one);
            let errors = keys.each_ref().map(|key| line.get(key.as_deref()?)?.as_f64());
            print!("{:<60}", one.name());
            errors.iter().for_each(|error| match error {
                Some(error) => print!("{error:>12.1e}"),
                None => print!("{:>12}", ""),
            });
            for (i, error) in errors.iter().enumerate().filter(|_| peers.is_some()) {
                let theirs = || peers?.number(&line, keys[i].as_deref()?);
                match error.and_then(|error| Some(times_larger(error, theirs()?))) {
                    Some(times) => {
                        compared += 1;
                        if times > worst.0 {
                            worst = (times, format!("{}, {}", one.name(), COLUMNS[i]));
                        }
                        print!("{times:>12.2}");
                    }
                    None => print!("{:>12}", if error.is_some() { "-" } else { "" }),
                }
            }
            println!();
        }
        if compared > 0 {
            let (times, name) = worst;
            println!(
                "\n{compared} errors compared; the worst is {times:.2} times theirs (at most 2 is \
                 wanted): {name}"
            );
        }
        Ok(())
    }
}

/// The line's key in each column.
fn keys(one: &Comparison) -> [Option<String>; 4] {
    let mut all = vec![Some("error_forward".to_string())];
    all.extend(one.gradients());
    all.resize(COLUMNS.len(), None);
    std::array::from_fn(|i| all[i].clone())
}
