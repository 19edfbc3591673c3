# The program, from this checkout and the libraries of nixpkgs: callPackage ./package.nix { }
{ lib, python3Packages }:
python3Packages.buildPythonApplication {
  pname = "uvtokend";
  version = builtins.head (
    builtins.match ".*__version__ = \"([^\"]+)\".*" (builtins.readFile ../../src/uvtokend/__init__.py)
  );
  pyproject = true;
  src = ../..;
  build-system = [ python3Packages.hatchling ];
  dependencies = with python3Packages; [
    apscheduler
    azure-core
    azure-identity
    boto3
    botocore
    google-auth
    platformdirs
    psutil
    requests
    tomlkit
  ];
  pythonImportsCheck = [ "uvtokend" ];
  meta = {
    description = "Fresh tokens for private Python indexes";
    license = lib.licenses.mit;
    mainProgram = "uvtokend";
    platforms = lib.platforms.unix;
  };
}
