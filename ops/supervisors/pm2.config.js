// The worker daemon under pm2.
module.exports = {
  apps: [
    {
      name: "worker",
      script: "/etc/workerd/worker-start.sh",
      interpreter: "none",
      cwd: "/opt/shop",
      exec_mode: "fork",
      instances: 1, // how many jobs run at a time says WORKERS
      autorestart: true,
      stop_exit_codes: [0, 2], // a drain (`workerctl stop` too), settings that cannot be used
      exp_backoff_restart_delay: 100, // milliseconds, rising to 15 s; for ever
      kill_timeout: 60000, // milliseconds: DRAIN_TIMEOUT + 5 s to cancel + 10 s for the last results + 15 s for an embedded database
      treekill: false, // the signal goes to the process that was started alone, which passes it on
      wait_ready: false, // the daemon does not speak Node's protocol
      watch: false, // `workerctl reload` takes new code without interrupting a job
      vizion: false,
      merge_logs: true,
    },
  ],
};
