"""A web page about the runs of a store, made from the store alone and kept up to date while a browser shows it.

metered     the reading half of a store, which counts requests
reading     one iteration of a run: the states of its stages, and who works
details     one iteration in full: manifests, curves, films, costs
overview    the same as JSON for the page, with sentences
watching    the thread that reads the store while a browser asks
server      the page's addresses (Flask), on loopback
writing     the same page as static files
"""
