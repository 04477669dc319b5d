//! Which layers become one step: decided layer by layer, in the graph's order.

use super::{Fusion, Step, Target, Unfused, depthwise_geometry, geometry};
use crate::activation::Activation;
use crate::nn::graph::{Graph, Id, Node};
use crate::nn::layers::{Conv2D, Layer};
use crate::ops::conv2d::Conv2dGeometry;
use crate::ops::depthwise_conv2d::DepthwiseGeometry;
use crate::ops::epilogue::{Fusable, POOL, Setting};
use crate::ops::separable_conv2d::fuses_separable;

/// Decides layer by layer, in the graph's order, whose step computes it.
pub(super) struct Planner<'a> {
    graph: &'a Graph,
    target: &'a Target,
    readers: Vec<usize>,
    /// Whether a gradient comes back to a layer's output.
    recorded: Vec<bool>,
    /// For each layer, the one whose step computes it: itself until decided otherwise.
    computed_by: Vec<usize>,
    fusions: Vec<Fusion>,
    unfused: Vec<Vec<Unfused>>,
}

impl<'a> Planner<'a> {
    pub fn new(graph: &'a Graph, target: &'a Target) -> Self {
        let nodes = graph.nodes();
        let mut planner = Planner {
            graph,
            target,
            readers: graph.readers(),
            recorded: target.recorded(graph),
            computed_by: (0..nodes.len()).collect(),
            fusions: vec![Fusion::default(); nodes.len()],
            unfused: vec![Vec::new(); nodes.len()],
        };
        if !target.observed {
            nodes.iter().enumerate().for_each(|(i, node)| planner.decide(i, node));
        }
        planner
    }

    fn decide(&mut self, i: usize, node: &Node) {
        match (node.layer, &node.inputs[..]) {
            (Layer::Activation(activation), &[before]) => self.activation(i, before.0, activation),
            (Layer::Conv2D(Conv2D { kernel: [1, 1], stride: [1, 1], .. }), &[before]) => {
                self.separable(i, before.0);
            }
            (Layer::BatchNormalization(_), &[before]) => self.statistics(i, before.0),
            (Layer::Add, &[a, b]) => self.residual(i, [a.0, b.0]),
            (Layer::MaxPooling2D(POOL), &[before]) => self.pool(i, before.0),
            _ => {}
        }
    }

    /// The activation of a batch norm, or of a convolution without one.
    fn activation(&mut self, i: usize, before: usize, activation: Activation) {
        let layer = self.layer(before);
        let can =
            matches!(layer, Layer::BatchNormalization(_) | Layer::Conv2D(_) | Layer::DepthwiseConv2D(_));
        let alone = self.readers[before] == 1 && self.computed_by[before] == before;
        if !(can && alone && layer.activation() == Activation::Linear) {
            return;
        }
        match self.setting(before).fuses_activation(activation) {
            Ok(()) => {
                self.fusions[before].activation = activation;
                self.fuse(i, before);
            }
            Err(why) => self.keep_apart(before, i, "activation", why),
        }
    }

    /// The depthwise convolution that a 1×1 convolution alone reads, or reads through its activation.
    fn separable(&mut self, i: usize, before: usize) {
        let depthwise = self.computed_by[before];
        let alone = self.readers[before] == 1 && self.readers[depthwise] == 1;
        let (Layer::DepthwiseConv2D(_), true) = (self.layer(depthwise), alone) else { return };
        let (Some(depth), Some(point)) = (self.depthwise_geometry(depthwise), self.geometry(i)) else {
            return;
        };
        match fuses_separable(self.setting(i), &depth, &point) {
            Ok(_) => {
                let between = std::mem::take(&mut self.fusions[depthwise]);
                self.fusions[i].depthwise = Some((Id(depthwise), between.activation));
                between.layers.iter().for_each(|id| self.fuse(id.0, i));
                self.fuse(depthwise, i);
            }
            Err(why) => self.keep_apart(i, depthwise, "depthwise convolution", why),
        }
    }

    /// Statistics for the batch norm that alone reads a convolution, which takes them where the batch's are
    /// wanted.
    fn statistics(&mut self, norm: usize, before: usize) {
        let layer = self.layer(before);
        let alone = self.readers[before] == 1 && self.computed_by[before] == before;
        if !(alone && layer.activation() == Activation::Linear && self.target.batch_statistics_of(norm))
        {
            return;
        }
        let setting = self.setting(before);
        let can = match layer {
            Layer::Conv2D(_) if self.fusions[before].depthwise.is_some() => {
                Err("the convolution is made a few rows at a time")
            }
            Layer::Conv2D(_) => self.fusable(self.geometry(before), |g| g.fuses_statistics(setting)),
            Layer::DepthwiseConv2D(_) => {
                self.fusable(self.depthwise_geometry(before), |g| g.fuses_statistics(setting))
            }
            _ => return,
        };
        match can {
            Ok(()) => self.fusions[before].statistics = Some(Id(norm)),
            Err(why) => self.keep_apart(before, norm, "statistics", why),
        }
    }

    /// Of two summands one that a convolution makes for this sum alone, after the other is there.
    fn residual(&mut self, sum: usize, [a, b]: [usize; 2]) {
        let (conv, other) = if a > b { (a, b) } else { (b, a) };
        let Layer::Conv2D(Conv2D { activation: Activation::Linear, .. }) = self.layer(conv) else {
            return;
        };
        if conv == other || self.readers[conv] != 1 || self.computed_by[conv] != conv {
            return;
        }
        let nodes = self.graph.nodes();
        let after = nodes[conv + 1..].iter().filter(|node| node.inputs.contains(&Id(other)));
        let mut own = self.inputs(conv).into_iter();
        let can = self.fusable(self.geometry(conv), |g| g.fuses_residual(self.setting(sum)));
        let can = can.and_then(|()| match other {
            _ if after.count() > 1 => Err("what it is added to is read again, and may not change"),
            _ if own.any(|id| id.0 == other) => Err("what it is added to is what it reads"),
            0 => Err("what it is added to is the caller's"),
            _ => Ok(()),
        });
        match can {
            Ok(()) => {
                self.fusions[conv].residual = Some(Id(other));
                self.fuse(sum, conv);
            }
            Err(why) => self.keep_apart(conv, sum, "residual", why),
        }
    }

    /// The pooling of a convolution, or of the activation that is made with it.
    fn pool(&mut self, pool: usize, before: usize) {
        let conv = self.computed_by[before];
        let layer = self.layer(conv);
        let alone = self.readers[before] == 1 && self.readers[conv] == 1;
        let Fusion { residual, depthwise, pool: pooled, .. } = &self.fusions[conv];
        let free = residual.is_none() && depthwise.is_none() && !pooled;
        let free = free && layer.activation().is_fusable();
        if !(matches!(layer, Layer::Conv2D(_)) && alone && free) {
            return;
        }
        match self.fusable(self.geometry(conv), |g| g.fuses_pool(self.setting(conv))) {
            Ok(()) => {
                self.fusions[conv].pool = true;
                self.fuse(pool, conv);
            }
            Err(why) => self.keep_apart(conv, pool, "max pooling", why),
        }
    }

    fn layer(&self, i: usize) -> Layer {
        self.graph.nodes()[i].layer
    }

    fn setting(&self, i: usize) -> Setting {
        Setting { kernels: self.target.kernels, recorded: self.recorded[i] }
    }

    /// A layer becomes part of another's step.
    fn fuse(&mut self, layer: usize, into: usize) {
        self.computed_by[layer] = into;
        self.fusions[into].layers.push(Id(layer));
    }

    fn keep_apart(&mut self, step: usize, layer: usize, part: &'static str, why: &'static str) {
        self.unfused[step].push(Unfused { layer: Id(layer), part, why });
    }

    fn fusable<G>(&self, geometry: Option<G>, fuses: impl FnOnce(&G) -> Fusable) -> Fusable {
        geometry.as_ref().map_or(Err("its shapes do not fit"), fuses)
    }

    fn geometry(&self, i: usize) -> Option<Conv2dGeometry> {
        geometry(self.graph, self.target.input[0], i)
    }

    fn depthwise_geometry(&self, i: usize) -> Option<DepthwiseGeometry> {
        depthwise_geometry(self.graph, self.target.input[0], i)
    }

    /// What a layer's step reads.
    fn inputs(&self, i: usize) -> Vec<Id> {
        let first = self.fusions[i].depthwise.map_or(i, |(Id(depthwise), _)| depthwise);
        self.graph.nodes()[first].inputs.clone()
    }

    pub fn steps(self) -> Vec<Step> {
        let own = (0..self.graph.nodes().len()).filter(|&i| self.computed_by[i] == i);
        let mut steps: Vec<Step> = own
            .map(|i| {
                let fusion = self.fusions[i].clone();
                let last = fusion.layers.iter().map(|id| id.0).fold(i, usize::max);
                Step {
                    layer: Id(i),
                    inputs: self.inputs(i),
                    output: Id(last),
                    frees: Vec::new(),
                    unfused: self.unfused[i].clone(),
                    batch_statistics: self.target.batch_statistics_of(i),
                    fusion,
                }
            })
            .collect();
        free_after_last_use(&mut steps, self.graph.output());
        steps
    }
}

/// Each output but the network's goes with the last step that reads it, or, if none does, with the one that
/// makes it.
fn free_after_last_use(steps: &mut [Step], kept: Id) {
    let last_use =
        |id: Id| steps.iter().rposition(|step| step.output == id || step.reads().any(|i| i == id));
    let outputs = steps.iter().map(|step| step.output).filter(|&id| id != kept);
    let uses: Vec<(Id, Option<usize>)> = outputs.map(|id| (id, last_use(id))).collect();
    for (id, step) in uses {
        if let Some(step) = step {
            steps[step].frees.push(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Plan, PlanCache};
    use super::*;
    use crate::backend::cpu::simd::Isa;
    use crate::nn::layers::BatchNormalization;
    use crate::ops::Padding;
    use crate::ops::epilogue::Kernels;
    use std::sync::Arc;

    fn target(graph: &Graph, batch: usize) -> Target {
        let &[h, w, c] = &graph.nodes()[0].output_shape[..] else { panic!("images") };
        Target {
            kernels: Kernels::Cpu(Isa::Portable),
            input: [batch, h, w, c].into(),
            input_gradient: false,
            gradients: false,
            batch_statistics: false,
            trains: graph.nodes().iter().map(|node| !node.parameters.is_empty()).collect(),
            observed: false,
        }
    }

    fn training(graph: &Graph, batch: usize) -> Target {
        Target { gradients: true, batch_statistics: true, ..target(graph, batch) }
    }

    /// The step that computes a layer.
    fn step_of(plan: &Plan, layer: Id) -> &Step {
        plan.steps.iter().find(|step| step.layers().contains(&layer)).unwrap()
    }

    /// A convolution with its activation and pooling; one whose result is added to what is read no more; one
    /// that two pools read.
    fn residual_network() -> (Graph, [Id; 5]) {
        let mut g = Graph::new("residual", "input", [16, 16, 16]);
        let conv = Layer::conv2d(16, 3).with_padding(Padding::Same);
        let relu = Layer::Activation(Activation::Relu);
        let first = g.add(conv, &[g.input()]).unwrap();
        let a = g.chain(first, [relu, Layer::max_pooling2d(2)]).unwrap();
        let between = g.add(Layer::conv2d(16, 1), &[a]).unwrap();
        let point = g.add(Layer::conv2d(16, 1), &[between]).unwrap();
        let sum = g.add(Layer::Add, &[a, point]).unwrap();
        let seen = g.add(conv, &[sum]).unwrap();
        let pooled = g.add(Layer::max_pooling2d(2), &[seen]).unwrap();
        let other = g.add(Layer::max_pooling2d(2), &[seen]).unwrap();
        g.add(Layer::Add, &[pooled, other]).unwrap();
        (g, [first, a, point, sum, seen])
    }

    #[test]
    fn what_nobody_else_reads_is_made_in_one_step() {
        let (g, [first, a, point, sum, seen]) = residual_network();
        let plan = Plan::new(&g, &target(&g, 1));
        let step = step_of(&plan, first);
        assert_eq!((step.layer, step.output, step.layers().len()), (first, a, 3));
        assert_eq!((step.fusion.activation, step.fusion.pool), (Activation::Relu, true));
        let step = step_of(&plan, sum);
        assert_eq!((step.layer, step.output, step.fusion.residual), (point, sum, Some(a)));
        assert!(step.frees.contains(&a));
        assert_eq!(step_of(&plan, seen).fusion, Fusion::default());
        assert_eq!(plan.steps.len(), 8);
        let all = Plan::new(&g, &Target { observed: true, ..target(&g, 1) });
        assert!(all.steps.len() == g.nodes().len() && all.steps.iter().all(|s| s.unfused.is_empty()));
    }

    #[test]
    fn every_output_but_the_last_is_freed_once_and_after_all_who_read_it() {
        let (g, _) = residual_network();
        for target in [target(&g, 2), training(&g, 2)] {
            let plan = Plan::new(&g, &target);
            let mut freed: Vec<Id> = Vec::new();
            for step in &plan.steps {
                assert!(step.reads().all(|id| !freed.contains(&id)), "{step:?}");
                freed.extend(&step.frees);
            }
            freed.sort_by_key(|id| id.0);
            let mut made: Vec<Id> = plan.steps.iter().map(|step| step.output).collect();
            made.retain(|&id| id != g.output());
            made.sort_by_key(|id| id.0);
            assert_eq!(freed, made);
        }
    }

    #[test]
    fn what_is_not_fused_says_why() {
        let (g, [first, a, point, sum, _]) = residual_network();
        let why = |target: &Target, step: Id, layer: Id| {
            let plan = Plan::new(&g, target);
            let all = &step_of(&plan, step).unfused;
            all.iter().find(|unfused| unfused.layer == layer).map(|unfused| unfused.why)
        };
        let of_gradients = Some("its gradient needs what lies between");
        assert_eq!(why(&training(&g, 1), first, a), of_gradients);
        assert_eq!(why(&training(&g, 1), point, sum), of_gradients);
        let on_cuda = Target { kernels: Kernels::Cuda, ..target(&g, 1) };
        assert_eq!(why(&on_cuda, first, a), Some("no CUDA kernel does"));
        assert_eq!(why(&on_cuda, point, sum), Some("no CUDA kernel does"));
        let plan = Plan::new(&g, &on_cuda);
        assert_eq!(step_of(&plan, first).fusion.activation, Activation::Relu);
        let naive = Target { kernels: Kernels::Reference, ..target(&g, 1) };
        assert_eq!(Plan::new(&g, &naive).steps.len(), g.nodes().len());
    }

    #[test]
    fn a_sum_with_what_is_read_again_is_not_made_in_its_memory() {
        let mut g = Graph::new("sums", "input", [8, 8, 4]);
        let point = Layer::conv2d(4, 1);
        let a = g.add(point, &[g.input()]).unwrap();
        let b = g.chain(a, [point, point]).unwrap();
        let sum = g.add(Layer::Add, &[a, b]).unwrap();
        let again = g.add(Layer::Add, &[sum, a]).unwrap();
        let own = g.add(point, &[again]).unwrap();
        let third = g.add(Layer::Add, &[again, own]).unwrap();
        let plan = Plan::new(&g, &target(&g, 1));
        for (conv, sum, why) in [(b, sum, "read again"), (own, third, "what it reads")] {
            let unfused = &step_of(&plan, conv).unfused;
            assert!(unfused.iter().any(|u| u.layer == sum && u.why.contains(why)), "{unfused:?}");
        }
    }

    #[test]
    fn a_convolution_takes_statistics_for_the_batch_norm_that_alone_reads_it() {
        let mut g = Graph::new("norms", "input", [32, 32, 16]);
        let bn = Layer::BatchNormalization(BatchNormalization { epsilon: 1e-3, momentum: 0.9 });
        let conv = g.add(Layer::conv2d(16, 1), &[g.input()]).unwrap();
        let norm = g.add(bn, &[conv]).unwrap();
        let seen = g.add(Layer::depthwise_conv2d(), &[norm]).unwrap();
        g.add(bn, &[seen]).unwrap();
        g.add(Layer::Add, &[seen, seen]).unwrap();
        let fusions = |target: &Target| {
            let plan = Plan::new(&g, target);
            plan.steps.iter().filter_map(|step| step.fusion.statistics).collect::<Vec<Id>>()
        };
        assert_eq!(fusions(&training(&g, 16)), [norm]);
        // Of few pixels it does not take them, nor where nobody wants them.
        assert_eq!((fusions(&training(&g, 1)), fusions(&target(&g, 16))), (vec![], vec![]));
        let frozen = Target { trains: vec![false; g.nodes().len()], ..training(&g, 16) };
        assert_eq!(fusions(&frozen), []);
    }

    #[test]
    fn a_depthwise_convolution_is_made_by_the_pointwise_one_that_alone_reads_it() {
        let mut g = Graph::new("separable", "input", [64, 64, 32]);
        let (depthwise, point) = (Layer::depthwise_conv2d(), Layer::conv2d(32, 1));
        let relu = Layer::Activation(Activation::Relu);
        let first = g.add(depthwise, &[g.input()]).unwrap();
        let activated = g.add(relu, &[first]).unwrap();
        let conv = g.add(point, &[activated]).unwrap();
        let last = g.add(relu, &[conv]).unwrap();
        let pooled = g.add(Layer::max_pooling2d(2), &[last]).unwrap();
        // Two readers, and a reader that is no pointwise convolution.
        let shared = g.add(depthwise, &[pooled]).unwrap();
        let other = g.add(point, &[shared]).unwrap();
        let sum = g.add(Layer::Add, &[shared, other]).unwrap();
        g.chain(sum, [depthwise, Layer::conv2d(4, 3).with_padding(Padding::Same)]).unwrap();
        let plan = Plan::new(&g, &target(&g, 8));
        let step = step_of(&plan, first);
        assert_eq!((step.layer, step.inputs[..].to_vec(), step.output), (conv, vec![g.input()], last));
        assert_eq!(step.layers(), [first, activated, conv, last]);
        assert_eq!(step.fusion.depthwise, Some((first, Activation::Relu)));
        assert_eq!((step.fusion.activation, step.fusion.pool), (Activation::Relu, false));
        assert_eq!(plan.steps.iter().filter(|step| step.fusion.depthwise.is_some()).count(), 1);
        let plan = Plan::new(&g, &training(&g, 8));
        assert!(step_of(&plan, conv).unfused.iter().any(|unfused| unfused.layer == first));
    }

    #[test]
    fn a_plan_is_made_once_for_a_target() {
        let (g, _) = residual_network();
        let cache = PlanCache::default();
        let first = cache.get(&g, target(&g, 1));
        assert!(Arc::ptr_eq(&first, &cache.get(&g, target(&g, 1))));
        assert!(!Arc::ptr_eq(&first, &cache.get(&g, target(&g, 2))));
        assert!(!Arc::ptr_eq(&first, &cache.get(&g, training(&g, 1))));
    }
}
