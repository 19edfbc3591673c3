"""The providers: each gets a token from one kind of issuer, in a child process of its own.

A provider is one function ``fetch(request: Request) -> Credential`` behind the entry-point group
``uvtokend.providers``. It raises `uvtokend.errors.FetchFailed` with a classified `Failure`, and nothing else. This
package is the only one that imports an SDK. The daemon never imports it; it spawns `uvtokend.providers.worker`.
"""
