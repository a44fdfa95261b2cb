"""Reference loaders: programs that know the contract of the API and nothing else of Tukang."""
