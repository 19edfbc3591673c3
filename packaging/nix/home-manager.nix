# A module for home-manager: imports = [ uvtokend.homeManagerModules.default ];
#
#   services.uvtokend = {
#     enable = true;
#     settings.index = [ { url = "https://europe-west3-python.pkg.dev/acme-ml/models/simple/"; } ];
#   };
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.uvtokend;
  toml = pkgs.formats.toml { };
  path = "${config.home.profileDirectory}/bin:/run/wrappers/bin:/run/current-system/sw/bin:/usr/local/bin:/usr/bin:/bin";
in
{
  options.services.uvtokend = {
    enable = lib.mkEnableOption "the daemon that keeps the tokens of private Python indexes fresh";
    package = lib.mkOption {
      type = lib.types.package;
      default = pkgs.callPackage ./package.nix { };
      defaultText = lib.literalExpression "pkgs.callPackage ./package.nix { }";
      description = "The package.";
    };
    settings = lib.mkOption {
      inherit (toml) type;
      default = { };
      description = "What config.toml says; see uvtokend.toml(5). Without any, the file is yours to write.";
    };
  };

  config = lib.mkIf cfg.enable {
    home.packages = [ cfg.package ];
    xdg.configFile."uvtokend/config.toml" = lib.mkIf (cfg.settings != { }) {
      source = toml.generate "uvtokend.toml" cfg.settings;
    };
    systemd.user.services.uvtokend = {
      Unit = {
        Description = "uvtokend, fresh tokens for private Python indexes";
        Documentation = "man:uvtokend(1)";
      };
      Service = {
        Type = "notify";
        NotifyAccess = "main";
        ExecStart = "${lib.getExe cfg.package} run";
        ExecReload = "${pkgs.coreutils}/bin/kill -HUP $MAINPID";
        Restart = "on-failure";
        RestartSec = 5;
        RestartPreventExitStatus = "2 203";
        KillMode = "mixed";
        TimeoutStopSec = 25;
        WatchdogSec = 100;
        UMask = "0077";
        LimitCORE = 0;
        Environment = "PATH=${path}";
        EnvironmentFile = "-%E/uvtokend/service.env";
      };
      Install.WantedBy = [ "default.target" ];
    };
    launchd.agents.uvtokend = {
      enable = true;
      config = {
        ProgramArguments = [
          (lib.getExe cfg.package)
          "run"
          "--quiet"
        ];
        EnvironmentVariables.PATH = path;
        RunAtLoad = true;
        KeepAlive.SuccessfulExit = false;
        ThrottleInterval = 10;
        ExitTimeOut = 25;
        Umask = 63;
      };
    };
  };
}
