"""The systems that workerd is compared with, each in an environment of its own."""
