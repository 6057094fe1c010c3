//! The layout of GPT-2 small: names and shapes as in the checkpoint that OpenAI published and
//! Hugging Face serves (12 layers, 768 wide, a vocabulary of 50257, 1024 positions, f32).

const LAYERS: usize = 12;
const VOCABULARY: usize = 50257;
const POSITIONS: usize = 1024;
const WIDTH: usize = 768;

/// A tensor to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
}

impl Spec {
    pub(crate) fn bytes(&self) -> usize {
        4 * self.shape.iter().product::<usize>()
    }
}

/// Returns the tensors, with layers and vocabulary scaled down.
pub(crate) fn gpt2(scale: f64) -> Vec<Spec> {
    #[expect(clippy::cast_possible_truncation, reason = "rounded first, and the scale is at most 1")]
    let scaled = |n: usize| ((n as f64 * scale).round() as usize).max(1);
    let mut specs = Vec::new();
    let mut add = |name: String, shape: &[usize]| specs.push(Spec { name, shape: shape.to_vec() });
    add("wte.weight".to_owned(), &[scaled(VOCABULARY), WIDTH]);
    add("wpe.weight".to_owned(), &[POSITIONS, WIDTH]);
    for layer in 0..scaled(LAYERS) {
        let mut part = |name: &str, shape: &[usize]| add(format!("h.{layer}.{name}"), shape);
        part("ln_1.weight", &[WIDTH]);
        part("ln_1.bias", &[WIDTH]);
        part("attn.bias", &[1, 1, POSITIONS, POSITIONS]);
        part("attn.c_attn.weight", &[WIDTH, 3 * WIDTH]);
        part("attn.c_attn.bias", &[3 * WIDTH]);
        part("attn.c_proj.weight", &[WIDTH, WIDTH]);
        part("attn.c_proj.bias", &[WIDTH]);
        part("ln_2.weight", &[WIDTH]);
        part("ln_2.bias", &[WIDTH]);
        part("mlp.c_fc.weight", &[WIDTH, 4 * WIDTH]);
        part("mlp.c_fc.bias", &[4 * WIDTH]);
        part("mlp.c_proj.weight", &[4 * WIDTH, WIDTH]);
        part("mlp.c_proj.bias", &[WIDTH]);
    }
    add("ln_f.weight".to_owned(), &[WIDTH]);
    add("ln_f.bias".to_owned(), &[WIDTH]);
    specs
}

/// Splits the tensors, in order, into shards of about the same size.
pub(crate) fn shards(specs: &[Spec], count: usize) -> Vec<&[Spec]> {
    let total: usize = specs.iter().map(Spec::bytes).sum();
    let mut shards = Vec::with_capacity(count);
    let (mut start, mut seen) = (0, 0);
    for (i, spec) in specs.iter().enumerate() {
        seen += spec.bytes();
        if shards.len() + 1 < count && seen * count >= total * (shards.len() + 1) {
            shards.push(&specs[start..=i]);
            start = i + 1;
        }
    }
    shards.push(&specs[start..]);
    shards
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_layout_is_that_of_gpt2() {
        let specs = gpt2(1.0);
        assert_eq!(specs.len(), 160);
        let bytes: usize = specs.iter().map(Spec::bytes).sum();
        // The published model.safetensors has 548,105,171 bytes: this many after 14,291 bytes of
        // header.
        assert_eq!(bytes, 548_090_880);
    }

    #[test]
    fn shards_hold_every_tensor_once_and_are_of_one_size() {
        let specs = gpt2(1.0);
        let shards = shards(&specs, 2);
        assert_eq!(shards.concat(), specs);
        let sizes: Vec<usize> = shards.iter().map(|shard| shard.iter().map(Spec::bytes).sum()).collect();
        assert!(sizes[0].abs_diff(sizes[1]) < 20 << 20, "{sizes:?}");
        assert!(gpt2(0.001).len() > 10);
    }
}
