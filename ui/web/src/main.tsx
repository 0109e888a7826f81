import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import './app/styles.css';
import { Application } from './app/application';
import { router } from './app/router';
import { adoptCssVariables } from './app/theme';

adoptCssVariables();

createRoot(document.getElementById('root') as HTMLElement).render(
  <StrictMode>
    <Application router={router} />
  </StrictMode>,
);
