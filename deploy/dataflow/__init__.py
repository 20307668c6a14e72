"""The image and the Flex Template for Dataflow."""
