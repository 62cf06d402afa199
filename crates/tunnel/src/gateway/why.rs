//! What would become of a packet of each client: the same decisions as for real ones, told.

use std::time::Instant;

use connlib_link::PeerId;

use super::Gateway;
use crate::why::{Explanation, Question, Verdict};

impl Gateway {
    /// Tells what would become of a packet if each of the clients sent it, and why. It changes nothing.
    pub fn explain(&mut self, now: Instant, question: &Question) -> Vec<Explanation> {
        let mut explanations = self.peers.explain(now, question, self.addresses);
        for (client, explanation) in &mut explanations {
            explanation.client = Some(client.to_string());
            explanation.find_path(&self.links, PeerId::from(*client));
        }
        if explanations.is_empty() {
            let why = "no client may use anything here";
            return vec![Explanation::new(question, Verdict::Refused, why)];
        }

        explanations
            .into_iter()
            .map(|(_, explanation)| explanation)
            .collect()
    }
}
