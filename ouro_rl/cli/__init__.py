"""The command line `ouro-rl`: arguments are parsed and checked before anything heavy is imported."""
