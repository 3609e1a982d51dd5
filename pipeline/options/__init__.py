"""The option schema. ``params.yaml`` is an Axolotl config, key for key; here each key has its type, meaning and readers.

One module per capability holds the option groups; :mod:`pipeline.options.views` says which stage reads which group;
:mod:`pipeline.options.recipe` reads and checks a whole file. Nothing here does heavy imports or touches the network.
"""
