//! Partitions a checkpoint over the ranks of a group.

use crate::catalog::{Catalog, TensorInfo};
use crate::error::Error;
use crate::glob::Glob;
use crate::tensor_slice::TensorSlice;
use alloc::string::ToString;
use alloc::vec::Vec;

/// How ranks share a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Partition {
    /// Every rank gets the whole tensor.
    Replicate,
    /// Every rank gets its part of this dimension. Dimension 0 is the slowest.
    Shard(u32),
}

/// Rules that partition tensors by name. The first pattern that matches counts. Other tensors are
/// replicated.
///
/// ```
/// use floodtide_core::{Partition, Glob, Selection, ShardRules};
///
/// // Fused projections by rows, then the rules of Llama; rank 1 of 4.
/// let fused = ShardRules::new([(Glob::new("*.qkv_proj.weight")?, Partition::Shard(0))]);
/// let mine = Selection::shard(1, 4, fused.or(ShardRules::tensor_parallel()));
/// # let _ = mine;
/// # Ok::<(), floodtide_core::GlobError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShardRules {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    glob: Glob,
    partition: Partition,
    /// Whether the rule may match nothing.
    optional: bool,
}

/// Projections that are split by output, and tables with one row per token. Weights are `[out,
/// in]`.
const BY_OUTPUT: [&str; 5] = ["*.q_proj.", "*.k_proj.", "*.v_proj.", "*.gate_proj.", "*.up_proj."];
/// Projections that are split by input. Their bias is added once, so it is not split.
const BY_INPUT: [&str; 2] = ["*.o_proj.weight", "*.down_proj.weight"];
const BY_TOKEN: [&str; 2] = ["*embed_tokens.weight", "*lm_head.weight"];

impl ShardRules {
    /// Creates rules in this order.
    ///
    /// Each pattern must match a tensor of the checkpoint, selected or not. One that matches none
    /// is probably mistyped, and tensors would be replicated by mistake.
    #[must_use]
    pub fn new(rules: impl IntoIterator<Item = (Glob, Partition)>) -> Self {
        Self { rules: rules.into_iter().map(|(glob, partition)| Rule { glob, partition, optional: false }).collect() }
    }

    /// Allows these rules to match nothing, for a set that suits several models.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.rules.iter_mut().for_each(|rule| rule.optional = true);
        self
    }

    /// Partitions every tensor by its slowest dimension, as FSDP2 (`Shard(0)`) does.
    ///
    /// Each rank reads its share of the bytes, and its share of each tensor is contiguous.
    #[must_use]
    pub fn rows() -> Self {
        Self::constant([("*", Partition::Shard(0))])
    }

    /// Returns the tensor parallelism of Llama and of models with the same names in Hugging Face's
    /// layout (Mistral, Qwen, Gemma).
    ///
    /// - By the slowest dimension: `q_proj`, `k_proj`, `v_proj`, `gate_proj` and `up_proj` with
    ///   their biases, `embed_tokens` and `lm_head` ("colwise" in the models'
    ///   `base_model_tp_plan`).
    /// - By the next dimension: the weights of `o_proj` and `down_proj` ("rowwise").
    /// - Replicated: everything else.
    #[must_use]
    pub fn tensor_parallel() -> Self {
        let by_output = BY_OUTPUT.iter().flat_map(|name| ["weight", "bias"].map(|kind| [name, kind].concat()));
        let rules = by_output.map(|pattern| (pattern, 0));
        let rules = rules.chain(BY_TOKEN.map(|pattern| (pattern.into(), 0)));
        let rules = rules.chain(BY_INPUT.map(|pattern| (pattern.into(), 1)));
        Self::constant(rules.map(|(pattern, dim)| (pattern, Partition::Shard(dim))))
    }

    fn constant<S: AsRef<str>>(rules: impl IntoIterator<Item = (S, Partition)>) -> Self {
        // These patterns have no bracket, so all of them are valid.
        Self::new(
            rules.into_iter().filter_map(|(pattern, partition)| Some((Glob::new(pattern.as_ref()).ok()?, partition))),
        )
        .optional()
    }

    /// Adds other rules for tensors that these do not match.
    #[must_use]
    pub fn or(mut self, others: Self) -> Self {
        self.rules.extend(others.rules);
        self
    }

    /// Returns how the tensor with this name is partitioned.
    #[must_use]
    pub fn partition(&self, name: &str) -> Partition {
        self.rules.iter().find(|rule| rule.glob.matches(name)).map_or(Partition::Replicate, |rule| rule.partition)
    }

    /// Rejects a rule that matches no tensor of a checkpoint, unless it is optional.
    pub(crate) fn check(&self, catalog: &Catalog) -> Result<(), Error> {
        let needed = self.rules.iter().filter(|rule| !rule.optional);
        for Rule { glob, .. } in needed {
            if !catalog.tensors().any(|tensor| glob.matches(tensor.name)) {
                return Err(Error::UnmatchedShardRule { glob: glob.pattern().to_string() });
            }
        }
        Ok(())
    }

    /// Returns true if ranks share the tensor rather than each get all of it.
    pub(crate) fn is_sharded(&self, tensor: &TensorInfo<'_>) -> bool {
        self.partition(tensor.name) != Partition::Replicate && !tensor.shape.is_empty()
    }

    /// Returns the share of a rank in a tensor. Every rank gets scalars whole.
    pub(crate) fn slice_for_rank(&self, tensor: &TensorInfo<'_>, rank: u32, world: u32) -> Result<TensorSlice, Error> {
        let Partition::Shard(dim) = self.partition(tensor.name) else { return Ok(TensorSlice::whole(tensor.id)) };
        if tensor.shape.is_empty() {
            return Ok(TensorSlice::whole(tensor.id));
        }
        // Beyond the dimensions any range will do, because the slice is rejected.
        let size = tensor.shape.get(dim as usize).copied().unwrap_or(0);
        // As in `torch.chunk`: equal parts, rounded up, so the last ranks may get less, or nothing.
        let part = size.div_ceil(u64::from(world));
        let start = part.saturating_mul(u64::from(rank)).min(size);
        TensorSlice::slice(tensor, dim, start..start.saturating_add(part).min(size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{SAFETENSORS, safetensors::Header};
    use crate::{Catalog, CatalogBuilder, Selection, Slice, StridedRange};
    use alloc::string::ToString;
    use core::ops::Range;

    /// Returns a catalog of tensors with these names, dtypes and shapes.
    fn catalog(tensors: &[(&str, &str, &[u64])]) -> Catalog {
        let (mut entries, mut at) = (alloc::string::String::new(), 0);
        for (name, dtype, shape) in tensors {
            let bits = crate::DType::from_name(dtype).expect("a dtype").bits();
            let bytes = shape.iter().product::<u64>() * bits / 8;
            entries += if entries.is_empty() { "" } else { "," };
            entries += &alloc::format!(
                r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{at},{}]}}"#,
                at + bytes
            );
            at += bytes;
        }
        let json = alloc::format!("{{{entries}}}");
        let bytes = 8 + json.len() as u64 + at;
        let mut builder = CatalogBuilder::new(SAFETENSORS);
        Header::parse(json.as_bytes(), bytes).expect("valid").add_to(&mut builder, "f", bytes).expect("adds");
        builder.finish().expect("unique names")
    }

    /// Dimension, start and end of what is selected of each tensor, if it is not all.
    type Slices = Vec<Option<(u32, u64, u64)>>;

    fn slices(catalog: &Catalog, selection: &Selection) -> Result<Slices, Error> {
        let of = |slice: TensorSlice| slice.as_slice().map(|Slice { dim, start, end }| (dim, start, end));
        Ok(selection.resolve(catalog)?.into_iter().map(of).collect())
    }

    #[test]
    fn rows_are_shared_as_by_torch_chunk() {
        let catalog = catalog(&[("a", "F32", &[10, 3]), ("b", "F32", &[]), ("c", "U8", &[2]), ("d", "U8", &[0, 5])]);
        let rank = |rank| slices(&catalog, &Selection::shard(rank, 4, ShardRules::rows())).expect("resolves");
        assert_eq!(rank(0), [Some((0, 0, 3)), None, Some((0, 0, 1)), None]);
        assert_eq!(rank(2), [Some((0, 6, 9)), None, Some((0, 2, 2)), None]);
        assert_eq!(rank(3), [Some((0, 9, 10)), None, Some((0, 2, 2)), None]);
        let alone = slices(&catalog, &Selection::shard(0, 1, ShardRules::rows())).expect("resolves");
        assert!(alone.iter().all(Option::is_none), "all of it is no slice");
        let last = slices(&catalog, &Selection::shard(u32::MAX - 1, u32::MAX, ShardRules::rows())).expect("resolves");
        assert_eq!(last[0], Some((0, 10, 10)));
    }

    #[test]
    fn the_rules_of_tensor_parallelism_are_those_of_llama() {
        let rules = ShardRules::tensor_parallel();
        assert_eq!(rules.rules.len(), 2 * BY_OUTPUT.len() + BY_INPUT.len() + BY_TOKEN.len(), "each can be read");
        for (name, partition) in [
            ("model.embed_tokens.weight", Partition::Shard(0)),
            ("lm_head.weight", Partition::Shard(0)),
            ("model.layers.0.self_attn.q_proj.weight", Partition::Shard(0)),
            ("model.layers.0.self_attn.k_proj.bias", Partition::Shard(0)),
            ("model.layers.0.self_attn.v_proj.weight", Partition::Shard(0)),
            ("model.layers.0.self_attn.o_proj.weight", Partition::Shard(1)),
            ("model.layers.0.self_attn.o_proj.bias", Partition::Replicate),
            ("model.layers.10.mlp.gate_proj.weight", Partition::Shard(0)),
            ("model.layers.10.mlp.up_proj.weight", Partition::Shard(0)),
            ("model.layers.10.mlp.down_proj.weight", Partition::Shard(1)),
            ("model.layers.0.input_layernorm.weight", Partition::Replicate),
            ("model.layers.0.self_attn.q_norm.weight", Partition::Replicate),
            ("model.norm.weight", Partition::Replicate),
        ] {
            assert_eq!(rules.partition(name), partition, "{name}");
        }
        let mine = ShardRules::new([(Glob::new("*.gate_proj.*").expect("closed"), Partition::Replicate)]).or(rules);
        assert_eq!(
            mine.partition("model.layers.0.mlp.gate_proj.weight"),
            Partition::Replicate,
            "the first rule counts"
        );
    }

    #[test]
    fn a_rule_that_matches_nothing_is_refused_unless_it_may() {
        let catalog = catalog(&[("a.weight", "F32", &[4, 6]), ("b.weight", "F32", &[4, 6])]);
        let rules = |pattern| ShardRules::new([(Glob::new(pattern).expect("closed"), Partition::Shard(1))]);
        let shard = |rules| slices(&catalog, &Selection::shard(0, 2, rules));
        let error = shard(rules("*.wieght").or(ShardRules::rows())).expect_err("mistyped");
        assert_eq!(error, Error::UnmatchedShardRule { glob: "*.wieght".to_string() });
        let message = error.to_string();
        assert!(["\"*.wieght\"", "correct the pattern"].iter().all(|word| message.contains(word)), "{message}");
        assert_eq!(shard(rules("*.wieght").optional()), Ok(alloc::vec![None, None]));
        let part = Selection::names(["a.weight"]).sharded(0, 2, rules("b.*").or(ShardRules::rows()));
        assert_eq!(slices(&catalog, &part), Ok(alloc::vec![Some((0, 0, 2))]), "what it matches need not be selected");
    }

    #[test]
    fn a_shard_that_cuts_nothing_is_warned_of() {
        let catalog = catalog(&[("h.0.c_attn\u{202e}.weight", "F32", &[4, 6]), ("scalar", "F32", &[])]);
        let warning = |selection: Selection| selection.warning(&catalog).map(|warning| warning.to_string());
        let uncut = warning(Selection::shard(1, 4, ShardRules::tensor_parallel())).expect("nothing is cut");
        for words in ["1/4", "all 2 selected tensors whole", r"h.0.c_attn\u{202e}.weight", "ShardRules"] {
            assert!(uncut.contains(words), "\"{words}\" is not in: {uncut}");
        }
        assert_eq!(warning(Selection::shard(1, 4, ShardRules::rows())), None);
        assert_eq!(warning(Selection::shard(0, 1, ShardRules::tensor_parallel())), None, "one rank gets everything");
        assert_eq!(warning(Selection::All), None);
        let scalar = Selection::names(["scalar"]).sharded(0, 2, ShardRules::rows());
        assert!(warning(scalar.clone()).is_some_and(|words| words.contains("the selected tensor whole")));
        let several = Selection::names(["h.0.c_attn\u{202e}.weight"]).and(scalar);
        assert!(warning(several).is_some(), "also as a part of a selection");
    }

    #[test]
    fn selections_go_together_unless_they_contradict() {
        let catalog = catalog(&[("a", "F32", &[4, 6]), ("b", "F32", &[4, 6]), ("c", "F32", &[4])]);
        let both = Selection::slice("b", 1, 2..5).and(Selection::names(["a"])).and(Selection::slice("c", 0, 1..1));
        assert_eq!(slices(&catalog, &both), Ok(alloc::vec![None, Some((1, 2, 5)), Some((0, 1, 1))]));
        let listed: Vec<u32> =
            both.resolve_in_order(&catalog).expect("resolves").iter().map(|slice| slice.tensor().0).collect();
        assert_eq!(listed, [1, 0, 2]);
        let all = Selection::slice("c", 0, 0..4).and(Selection::All);
        assert_eq!(slices(&catalog, &all), Ok(alloc::vec![None; 3]), "all of it is the whole tensor");
        let twice = Selection::slice("b", 1, 2..5).and(Selection::globs(["b"]).expect("a pattern"));
        for error in [twice.resolve(&catalog), twice.resolve_in_order(&catalog)] {
            assert_eq!(error, Err(Error::SelectedTwice { tensor: "b".to_string() }));
        }
        let cut_again = Selection::slice("b", 1, 2..5).sharded(0, 2, ShardRules::rows()).resolve(&catalog);
        assert_eq!(cut_again, Err(Error::SliceOfSlice { tensor: "b".to_string() }));
        let part = Selection::names(["b"]).sharded(1, 2, ShardRules::rows());
        assert_eq!(slices(&catalog, &part), Ok(alloc::vec![Some((0, 2, 4))]));
    }

    #[test]
    fn what_cannot_be_sliced_says_why() {
        let catalog = catalog(&[("a", "F32", &[4, 6]), ("p", "F4", &[4, 3]), ("s", "F32", &[])]);
        let error = |selection: Selection| selection.resolve(&catalog).expect_err("refused").to_string();
        for (selection, words) in [
            (Selection::slice("a", 2, 0..1), &["\"a\"", "dimension 2", "[4, 6]"][..]),
            (Selection::slice("a", u32::MAX, 0..1), &["dimension 4294967295"]),
            (Selection::slice("s", 0, 0..1), &["\"s\"", "[]"]),
            (Selection::slice("a", 1, 2..7), &["\"a\"", "2..7", "dimension 1", "[4, 6]"]),
            (Selection::slice("a", 1, Range { start: 3, end: 2 }), &["3..2"]),
            (Selection::slice("a", 1, 0..u64::MAX), &["18446744073709551615"]),
            (Selection::slice("p", 0, 0..1), &["\"p\"", "F4", "inside a byte", "0..1", "[4, 3]"]),
            (Selection::slice("x", 0, 0..1), &["\"x\""]),
            (Selection::shard(4, 4, ShardRules::rows()), &["rank 4", "for 4 ranks"]),
            (Selection::shard(0, 0, ShardRules::rows()), &["for 0 ranks"]),
        ] {
            let message = error(selection);
            words.iter().for_each(|word| assert!(message.contains(word), "\"{word}\" is not in: {message}"));
        }
        let even = Selection::slice("p", 0, 2..4).resolve(&catalog).expect("whole bytes");
        assert_eq!(even[0].byte_len(&catalog.tensor(even[0].tensor())), 3);
    }

    #[test]
    fn shapes_that_no_memory_holds_do_no_harm() {
        let json = r#"{"a":{"dtype":"U8","shape":[0,18446744073709551615,18446744073709551615],"data_offsets":[0,0]}}"#;
        let bytes = 8 + json.len() as u64;
        let Ok(header) = Header::parse(json.as_bytes(), bytes) else { return };
        let mut builder = CatalogBuilder::new(SAFETENSORS);
        header.add_to(&mut builder, "f", bytes).expect("adds");
        let catalog = builder.finish().expect("unique");
        let rules = ShardRules::new([(Glob::new("*").expect("closed"), Partition::Shard(1))]);
        for rank in [0, 6] {
            let slice = Selection::shard(rank, 7, rules.clone()).resolve(&catalog).expect("resolves");
            let tensor = catalog.tensor(slice[0].tensor());
            assert_eq!((slice[0].byte_len(&tensor), slice[0].strided(&tensor)), (0, None::<StridedRange>));
        }
    }
}
