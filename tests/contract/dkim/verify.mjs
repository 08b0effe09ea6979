// Verifies the message on standard input with mailauth. The DNS records come as JSON in the first argument: {name: text}.
// Prints one line per signature: algorithm and result.
import { dkimVerify } from 'mailauth/lib/dkim/verify.js';

const records = JSON.parse(process.argv[2]);
const resolver = async (name, type) => {
  if (type === 'TXT' && records[name]) return [[records[name]]];
  const error = new Error('no such record');
  error.code = 'ENOTFOUND';
  throw error;
};
const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const { results } = await dkimVerify(Buffer.concat(chunks), { resolver, minBitLength: 1024 });
for (const { algo, status } of results) console.log(`${algo} ${status.result}`);
