"""Making the rare-disease engine: knowledge out of HPO's annotations, training, evaluation."""
