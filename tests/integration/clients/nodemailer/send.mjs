// Sends one message; the options of nodemailer's transport and message come as JSON on standard input.
import fs from 'node:fs';
import nodemailer from 'nodemailer';

const { transport, message } = JSON.parse(fs.readFileSync(0, 'utf8'));
const sender = nodemailer.createTransport({ ...transport, tls: { ca: fs.readFileSync(transport.ca) } });
const sent = await sender.sendMail(message);
console.log(sent.response);
sender.close();
