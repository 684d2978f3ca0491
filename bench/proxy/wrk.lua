-- Makes an upload of as many bytes as the first argument says (0: a GET), and prints what wrk measured as one line of JSON.

function init(arguments)
  local bytes = tonumber(arguments[1] or "0")
  if bytes > 0 then
    wrk.method = "POST"
    wrk.body = string.rep("u", bytes)
  end
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"bytes":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"p999_us":%d,"max_us":%d,' ..
    '"errors":{"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}}\n',
    summary.requests, summary.bytes, summary.duration,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9), latency.max,
    errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
