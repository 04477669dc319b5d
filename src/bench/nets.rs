//! Whole networks: an inference batch and a training step.

use super::{Machine, Timing, milliseconds, peak_rss_mib, tenths, time};
use crate::context::{no_grad, precision};
use crate::data::loader::Batch;
use crate::device::Device;
use crate::error::{Error, Result, did_you_mean};
use crate::models::Spec;
use crate::nn::{Mode, Model, for_inference};
use crate::ops::{sign, sparse_softmax_cross_entropy};
use crate::pool::{self, Buffer};
use crate::random::{Stream, domain};
use crate::tensor::{Shape, Tensor};
use crate::train::{Preset, TrainConfig, Trainer};
use serde_json::{Map, Value, json};

/// A network as `benches/peers` names it, trained as the notebook this pipeline replaces did.
///
/// ```
/// use atrous::bench::{NETS, Net};
///
/// let net = Net::find("vgg16_frozen")?;
/// assert_eq!((net.size, net.batch), (224, 10));
/// assert_eq!(net.with(Some(4), None).batch, 4);
/// assert!(NETS.iter().any(|known| known.name == net.name) && Net::find("lenet").is_err());
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Net {
    /// As `benches/peers` calls it: network and what trains, `vgg16_frozen`.
    pub name: &'static str,
    network: &'static str,
    /// Height and width of the images, in pixels.
    pub size: usize,
    classes: usize,
    /// Images in a batch.
    pub batch: usize,
    trained: Trained,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trained {
    Whole,
    /// The base stays as it is.
    Head,
    /// Nothing is: a step is the sign of the gradient by the images, as an attack wants it.
    Images,
}

const fn net(
    name: &'static str,
    network: &'static str,
    [size, classes, batch]: [usize; 3],
    trained: Trained,
) -> Net {
    Net { name, network, size, classes, batch, trained }
}

/// The networks of `atrous bench nets`, with the sizes and batches that peers measure.
///
/// [`Net`] has an example.
pub const NETS: [Net; 7] = [
    net("alexnet", "alexnet", [150, 20, 16], Trained::Whole),
    net("vgg16_frozen", "vgg16", [224, 20, 10], Trained::Head),
    net("resnet50v2_frozen", "resnet50v2", [224, 20, 16], Trained::Head),
    net("mobilenetv2_frozen", "mobilenetv2", [256, 20, 16], Trained::Head),
    net("mobilenetv2_full", "mobilenetv2", [256, 20, 16], Trained::Whole),
    net("deeplabv3plus", "deeplabv3plus", [224, 21, 4], Trained::Whole),
    net("fgsm_mobilenetv2", "mobilenetv2", [224, 1000, 1], Trained::Images),
];

impl Net {
    /// The network of that name; an error that lists all names where there is none.
    pub fn find(name: &str) -> Result<Net> {
        NETS.into_iter().find(|net| net.name == name).ok_or_else(|| {
            let (known, meant) =
                (NETS.map(|net| net.name), did_you_mean(name, NETS.map(|net| net.name)));
            let known = known.join("`, `");
            Error::argument("bench", format!("`{name}` is none of the networks `{known}`{meant}"))
        })
    }

    /// This network with another batch or another side of its images.
    pub fn with(self, batch: Option<usize>, size: Option<usize>) -> Net {
        Net { batch: batch.unwrap_or(self.batch), size: size.unwrap_or(self.size), ..self }
    }

    /// The line of its times. The memory's peaks are the process': measure one network in each.
    pub fn measure(self, machine: &Machine, device: Device) -> Result<Map<String, Value>> {
        let train = self.training_step(device)?;
        // Nobody predicts in the process that trains: its memory is read before.
        let (train_rss, pool_peak) = (peak_rss_mib(), pool::usage().peak);
        pool::trim();
        let model = Model::new(self.config()?.graph()?, 1);
        let gflop = self.gflop(&model);
        let folded = for_inference(&model)?.to_device(device)?;
        let infer = |batch: usize| {
            let images = Net { batch, ..self }.batch_of_noise()?.images;
            time(4.0, || {
                let images = images.to_device(device)?;
                no_grad(|| folded.run(&images, Mode::infer()))?;
                device.synchronize()
            })
        };
        let (all, one) = (infer(self.batch)?, infer(1)?);
        let mut line = Map::new();
        let rate = gflop / train.median;
        let all = [
            ("net", json!(self.name)),
            ("shape", json!([self.size, self.size, 3])),
            ("batch", json!(self.batch)),
            ("device", json!(device.to_string())),
            ("precision", json!(precision().to_string())),
            ("threads", json!(machine.threads)),
            ("infer_ms", milliseconds(all.median)),
            ("infer_quarters_ms", all.quarters.map(milliseconds).to_vec().into()),
            ("infer1_ms", milliseconds(one.median)),
            ("infer1_quarters_ms", one.quarters.map(milliseconds).to_vec().into()),
            ("train_ms", milliseconds(train.median)),
            ("train_quarters_ms", train.quarters.map(milliseconds).to_vec().into()),
            ("train_gflop", tenths(gflop)),
            ("train_rss_mib", json!(train_rss)),
            ("peak_rss_mib", json!(peak_rss_mib())),
        ];
        // The limits, and the pool, are the CPU's.
        let of_cpu = [
            ("train_percent_fma", tenths(100.0 * rate / machine.fma_gflops)),
            ("fma_gflops", tenths(machine.fma_gflops)),
            ("triad_gbps", tenths(machine.triad_gbps)),
            ("pool_peak_mib", tenths(pool_peak as f64 / (1 << 20) as f64)),
        ];
        let of_cpu = of_cpu.into_iter().filter(|_| device == Device::Cpu);
        line.extend(all.into_iter().chain(of_cpu).map(|(key, value)| (key.to_string(), value)));
        Ok(line)
    }

    /// A step: forward, loss, backward, optimizer.
    pub(super) fn training_step(self, device: Device) -> Result<Timing> {
        let (batch, config) = (self.batch_of_noise()?, self.config()?);
        let model = Model::new(config.graph()?, 1);
        if self.trained != Trained::Images {
            let mut trainer = Trainer::new(model, config)?;
            trainer.to_device(device)?;
            return time(6.0, || trainer.step(&batch).map(|_| ()));
        }
        let folded = for_inference(&model)?.to_device(device)?;
        let labels = Tensor::zeros([self.batch]).to_device(device)?;
        time(4.0, || {
            let images = batch.images.to_device(device)?.leaf();
            let logits = folded.run(&images, Mode::infer())?.logits;
            let loss = sparse_softmax_cross_entropy(&logits, &labels, None, None)?;
            let gradients = loss.backward()?;
            if let Some(gradient) = gradients.get(&images) {
                no_grad(|| sign(gradient))?;
            }
            device.synchronize()
        })
    }

    pub(super) fn config(self) -> Result<TrainConfig> {
        let spec = Spec::new(self.network, self.size, self.classes);
        let config = Preset::new("notebook", spec, self.trained == Trained::Head)?.config;
        Ok(TrainConfig { epochs: 1, batch_size: self.batch, seed: 1, ..config })
    }

    fn batch_of_noise(self) -> Result<Batch> {
        let Net { size, batch: n, classes, .. } = self;
        let mut stream = Stream::new(1, &[domain::TEST]);
        let mut filled = |axes: &[usize], value: fn(&mut Stream, usize) -> f32| {
            let shape = Shape::checked(axes)?;
            let mut values = Buffer::<f32>::new(shape.elements());
            values.fill_with(|| value(&mut stream, classes));
            Ok::<_, Error>(Tensor::from_buffer(values, shape))
        };
        let images = filled(&[n, size, size, 3], |stream, _| stream.unit())?;
        let labels = filled(&[n, classes], |stream, _| (stream.unit() < 0.1) as u8 as f32)?;
        let segments = self.network == "deeplabv3plus";
        let mut masks = || filled(&[n, size, size], |stream, classes| stream.below(classes) as f32);
        let masks = segments.then(&mut masks).transpose()?;
        Ok(Batch { images, labels, warp: None, masks, indices: (0..n).collect() })
    }

    /// Arithmetic of a step as the definition counts it: three times the forward pass, less the gradient
    /// by the images where nobody asks for it, and less what a frozen base does not do.
    fn gflop(self, model: &Model) -> f64 {
        let (nodes, forward) = (model.graph.nodes(), model.graph.cost().flops as f64);
        let head: u64 = nodes[model.graph.base().len()..].iter().map(|node| node.cost.flops).sum();
        let step = match self.trained {
            Trained::Whole => 3.0 * forward - nodes[1].cost.flops as f64,
            Trained::Head => forward + 2.0 * head as f64,
            Trained::Images => 2.0 * forward,
        };
        step * self.batch as f64 / 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_network_has_a_plan_and_one_that_is_unknown_is_refused_by_name() {
        for net in NETS {
            net.config().unwrap().check().unwrap();
            assert_eq!(Net::find(net.name).unwrap().name, net.name);
        }
        assert!(Net::find("lenet").unwrap_err().to_string().contains("`lenet` is none of"));
    }
}
