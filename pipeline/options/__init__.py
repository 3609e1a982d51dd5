"""The option schema. ``params.yaml`` is an Axolotl config, key for key; here each key has its type, meaning and readers.

* One module per capability (``adapter``, ``packing``, ``precision`` …) holds the option groups; :mod:`pipeline.options.schema`
  says what they are made of, :mod:`pipeline.options.views` which stage reads which group.
* :mod:`pipeline.options.recipe` reads and checks a whole file with what is in :mod:`pipeline.options.reading`,
  :mod:`pipeline.options.rules` and :mod:`pipeline.options.defaults`.
* :mod:`pipeline.options.catalogue` lists every option; ``check``, ``explain``, ``reference``, ``json_schema`` and ``importer``
  are what the commands print.

Nothing here does heavy imports or touches the network.
"""
