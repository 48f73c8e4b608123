"""Image restoration in JAX: Deep Image Prior, its operators, losses, metrics and networks.

Images are float32 arrays in [0, 1], channels last. Import the module you need, e.g.
`from jaxsr import dip, losses, operators`; nothing heavy is imported here.
"""

__version__ = "0.1.0"
