-- Arguments after `--`: a method and the file of a body, or none for GET.
-- Prints what wrk measured as one line of JSON; times in microseconds.
function init(args)
   if args[1] then
      wrk.method = args[1]
      local file = io.open(args[2], "rb")
      wrk.body = file:read("*a")
      file:close()
      wrk.headers["Content-Type"] = "application/fhir+json"
   end
end

function done(summary, latency, requests)
   local failed = summary.errors.connect + summary.errors.read + summary.errors.write
      + summary.errors.status + summary.errors.timeout
   io.write(string.format('\n{"requests": %d, "duration": %d, "failed": %d, "p50": %d, "p99": %d}\n',
      summary.requests, summary.duration, failed, latency:percentile(50), latency:percentile(99)))
end
