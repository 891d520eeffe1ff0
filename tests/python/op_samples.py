"""All samples, and what cannot be sampled."""
from op_sketch import SAMPLES, Bench, Sample
import op_samples_elements, op_samples_matrix, op_samples_layers
